# ceflpipe as a container, for processors or, with --build-arg TORCH=cu128, for NVIDIA GPUs (docs/systems.md)
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG TORCH=cpu
ARG EXTRAS=openvino,dvc,hub
COPY --from=wheel /wheels /wheels
# torch from the index of its kind first; the wheel then finds it installed
RUN pip install --no-cache-dir torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}" \
    && pip install --no-cache-dir "$(ls /wheels/ceflpipe-*.whl)[${EXTRAS}]" \
    && rm -r /wheels \
    && useradd --create-home ceflpipe
USER ceflpipe
WORKDIR /data
ENTRYPOINT ["ceflpipe"]
CMD ["--help"]
