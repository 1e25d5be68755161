# ceflpipe as a container, for processors or, with --build-arg TORCH=cu130, for NVIDIA GPUs (docs/systems.md)
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG TORCH=cpu
ARG EXTRAS=openvino,dvc,hub
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
# torch from the index of its kind first; the wheel then finds it installed. The versions are those that the tests ran with
RUN grep -E "^torch(vision)?==" /wheels/constraints.txt > /wheels/torch.txt \
    && pip install --no-cache-dir --requirement /wheels/torch.txt --index-url "https://download.pytorch.org/whl/${TORCH}" \
    && pip install --no-cache-dir --constraint /wheels/constraints.txt "$(ls /wheels/ceflpipe-*.whl)[${EXTRAS}]" \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 ceflpipe
USER 1000
WORKDIR /data
ENTRYPOINT ["ceflpipe"]
CMD ["--help"]
