"""Embeddings of face tracks by an identity network, to tell persons apart: a few good crops of every track.

An identity network takes aligned faces and gives vectors that are near each other for one person: ArcFace (Deng et al., CVPR
2019) and its relatives. The crops are those of insightface: five landmarks on the template of utils/face_align.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ..device import num_threads
from ..encoder.onnx_card import PREFIX, OnnxOptions, read_entries
from ..encoder.onnx_network import OnnxNetwork
from ..extract.encoder_base import pad_batch
from ..extract.tracking import Face

MAX_CROPS = 12
"""Crops that stand for a face track."""
FIRST_SPACING = 5
"""Frames of which the best one is taken, at first; twice as many as often as there would be too many crops."""
MIN_QUALITY = 0.5
"""Of a crop, as a fraction of the best of its track."""
SMALL_FACE = 80.0
"""Side of a box in pixels below which a face counts for less."""
ARCFACE_CROP = 112
"""Side of the crops in pixels of a network that takes any size."""
THRESH_NOTE = "person_thresh"
"""Note in the card of an encoder file that states the threshold for its embeddings."""
PERSON_THRESH = 0.4
"""Cosine similarity from which face tracks are one person, for a network whose card names none."""


class IdentityNetwork:
    """An identity network: uint8 RGB crops (N, S, S, 3) to vectors (N, D) of length one.

    ``path``: an encoder file of ``ceflpipe encoder onnx:FILE``, which says how it is to be fed, or a network as insightface has
    them (w600k_r50.onnx of buffalo_l, w600k_mbf.onnx of buffalo_s): RGB crops of 112 pixels, or of the size that its input
    has, with values (pixel - 127.5) / 127.5, or pixels as they are if the network begins with such a subtraction.
    ``device``: cpu, cuda or cuda:1. Raises CeflError if it is neither.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        if not path.is_file():
            raise CeflError(f"--identity-network {path}: no such file; {hint()}")
        self.path, self.sha256 = path, sha256_of(path)
        try:
            self._network = _load(path, device)
        except CeflError as error:
            raise CeflError(
                f"--identity-network {path}: {str(error).removeprefix(f'{path}: ')} (or make an encoder file of it with ceflpipe "
                f"encoder onnx:{path} and its options, and give that)"
            ) from None
        self.crop_size = self._network.card.crop_size

    @property
    def thresh(self) -> float:
        """Cosine similarity from which two face tracks are one person: that in its card, else PERSON_THRESH."""
        text = self._network.card.notes.get(THRESH_NOTE, "")
        try:
            return float(text) if text else PERSON_THRESH
        except ValueError:
            raise CeflError(
                f"--identity-network {self.path}: its card says {THRESH_NOTE} {text!r}, not a number"
            ) from None

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Return the embedding (D,) float64 of the crops of a track: the mean of their vectors, of length one."""
        size, parts = self._network.card.batch_size, []
        for begin in range(0, len(crops), size):
            batch = crops[begin : begin + size]
            parts.append(self._network(pad_batch(batch, size))[: len(batch)].astype(np.float64))
        return unit(unit(np.concatenate(parts)).mean(axis=0))


def hint() -> str:
    """Return where an identity network may be files."""
    folder = Path("~/.insightface/models").expanduser()
    files = [
        path
        for name in ("w600k_r50.onnx", "w600k_mbf.onnx", "glintr100.onnx")
        for path in sorted(folder.glob(f"*/{name}"))
    ]
    if files:
        return f"insightface's is on this machine: give --identity-network {files[0]}"
    return "give the file of an identity network, such as insightface's w600k_r50.onnx (docs/predicting.md: Who is who)"


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (…, D) divided by their length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _load(path: Path, device: str) -> OnnxNetwork:
    if any(key.startswith(PREFIX) for key in read_entries(path)):
        return OnnxNetwork(path, num_threads(), device)
    from ..encoder.build_onnx import build_onnx_encoder, sidecar_path  # here: it needs the extra onnx
    from ..encoder.onnx_graph import image_input, normalizes_pixels, parse_untrusted

    options = OnnxOptions()
    if not sidecar_path(path).is_file():
        model = parse_untrusted(path)
        mean, std = (0.0, 1 / 255) if normalizes_pixels(model) else (0.5, 0.5)
        any_size = all(side is None for side in image_input(model, "", str(path)).shape[2:])
        options = OnnxOptions(
            mean=(mean, mean, mean), std=(std, std, std), crop_size=ARCFACE_CROP if any_size else None
        )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "identity.onnx"
        build_onnx_encoder(path, file, path.stem, options)
        return OnnxNetwork(file, num_threads(), device)


def crop_quality(face: Face) -> float:
    """Return how well a detected face shows who it is, 0..1: score of the detector, seen from the front, and large.

    Seen from the front the nose is between the eyes: its distance from their middle, along the line through them, is 0; from the
    side it is half the distance of the eyes or more.
    """
    left, right, nose = face.landmarks[:3].astype(float)
    axis = right - left
    length = float(axis @ axis)
    offset = abs(float((nose - (left + right) / 2) @ axis)) / length if length > 0 else 1.0
    side = float(np.clip(face.box[2:] - face.box[:2], 0, None).min())
    return max(0.0, face.score * (1 - min(1.0, 2 * offset)) * min(1.0, side / SMALL_FACE))


class BestFrames:
    """The best frames of a track, spread over its time: the best of every few, at most MAX_CROPS; all else is forgotten."""

    def __init__(self) -> None:
        self._spacing = FIRST_SPACING
        self._best: dict[int, tuple[float, int, np.ndarray | None]] = {}

    def offer(self, frame: int, quality: float, crop: Callable[[], np.ndarray] | None = None) -> None:
        """Take a frame if it is better than those near it; ``crop`` is called only then."""
        interval = frame // self._spacing
        if interval in self._best and self._best[interval][0] >= quality:
            return
        self._best[interval] = (quality, frame, crop() if crop else None)
        while len(self._best) > MAX_CROPS:
            self._spacing *= 2
            kept, self._best = self._best, {}
            for quality, frame, pixels in kept.values():
                interval = frame // self._spacing
                if interval not in self._best or self._best[interval][0] < quality:
                    self._best[interval] = (quality, frame, pixels)

    def _chosen(self) -> list[tuple[float, int, np.ndarray | None]]:
        least = MIN_QUALITY * max((quality for quality, *_ in self._best.values()), default=0.0)
        return [self._best[interval] for interval in sorted(self._best) if self._best[interval][0] >= least]

    @property
    def frames(self) -> tuple[int, ...]:
        """Indices of the frames in the file, in order."""
        return tuple(frame for _, frame, _ in self._chosen())

    def embedding(self, network: IdentityNetwork) -> np.ndarray:
        """Return the embedding (D,) of the crops, which are forgotten."""
        crops = [crop for *_, crop in self._chosen() if crop is not None]
        self._best = {interval: (quality, frame, None) for interval, (quality, frame, _) in self._best.items()}
        return network(np.stack(crops))
