"""ONNX networks and a CUDA provider for tests: detectors like those of insightface's packs, and a GPU that is this processor."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as states
import pytest
from onnx import TensorProto, helper, numpy_helper

CUDA = "CUDAExecutionProvider"


def write_pack(folder: Path, *, batch_axis: bool = False, one_image_only: bool = False) -> Path:
    """Write a detection model with random weights and the inputs and outputs of an SCRFD of insightface; return its file.

    ``batch_axis``: outputs (N, rows, C) instead of (rows, C). ``one_image_only``: an inner shape holds for one image.
    """
    rng = np.random.default_rng(0)
    nodes, weights, outputs = [], [], []

    def constant(name, array):
        weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    for part, width, scale in (("score", 1, 0.05), ("box", 4, 0.02), ("landmarks", 10, 0.02)):
        for stride in (8, 16, 32):
            name = f"{part}{stride}"
            kernel = (scale * rng.standard_normal((2 * width, 3, stride, stride))).astype(np.float32)
            convolved, permuted = f"{name}c", f"{name}t"
            nodes.append(
                helper.make_node("Conv", ["images", constant(f"{name}w", kernel)], [convolved], strides=[stride] * 2)
            )
            order = [0, 2, 3, 1] if batch_axis else [2, 3, 0, 1]
            nodes.append(helper.make_node("Transpose", [convolved], [permuted], perm=order))
            shape = [0, -1, width] if batch_axis else [-1, width]
            if one_image_only and stride == 8:
                shape = [(64 // 8) ** 2 * 2, width]
            target = f"{name}r" if part == "score" else name
            nodes.append(helper.make_node("Reshape", [permuted, constant(f"{name}s", np.array(shape))], [target]))
            if part == "score":
                nodes.append(helper.make_node("Sigmoid", [target], [name]))
            dims = [1, "rows", width] if batch_axis else ["rows", width]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    pixels = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "scrfd", [pixels], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "det_test.onnx"
    onnx.save(model, str(path))
    return path


class FakeGPU:
    """An ONNX Runtime whose CUDA provider is this processor; ``sessions``: the settings of each session on it, and its inputs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, falls_back: bool = False, fails_with: str = "") -> None:
        self.sessions: list[dict[str, str]] = []
        self.batches: list[int] = []
        gpu, real = self, onnxruntime.InferenceSession

        class Session(real):
            def __init__(self, model, options=None, providers=(), **settings):
                self.on_gpu = isinstance(providers[0], tuple)
                if self.on_gpu:
                    gpu.sessions.append(providers[0][1])
                super().__init__(model, options, providers=["CPUExecutionProvider"], **settings)

            def get_providers(self):
                return [*[CUDA] * (self.on_gpu and not falls_back), *super().get_providers()]

            def run(self, names, inputs, *rest):
                if self.on_gpu:
                    if fails_with:
                        raise states.Fail(fails_with)
                    gpu.batches.append(len(next(iter(inputs.values()))))
                return super().run(names, inputs, *rest)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
