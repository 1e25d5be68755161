"""What does a trained run say of a video it has never seen? Stage one's own code, then the run's heads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..cache.errors import CeflError
from ..cache.identity import ExtractionSettings
from ..cache.records import USABLE, VideoFeatures
from ..stages.encoder.weights import describe_encoder
from ..stages.extract.tools import Wishes, make_detector, make_encoder, settle
from ..stages.extract.video import Job, extract_videos
from ..stages.heads.evaluate import evaluate
from ..stages.heads.runfolder import Run
from ..stages.heads.sampling import sub_video_frames
from ..stages.heads.train import Data
from .places import weights_file


@dataclass(frozen=True)
class Prediction:
    """What a run says of one video; times in seconds from its start. ``failure`` holds the reason when it says nothing.

    ``probabilities`` by label; ``intensity``: per clip (begin, end, share), in time order, summing to one, for the
    predicted label; ``located``: the clip with the highest share.
    """

    path: Path
    frames: int
    frames_with_face: int
    fps: float
    label: str
    probabilities: dict[str, float]
    intensity: list[tuple[float, float, float]]
    located: tuple[float, float] | None
    failure: str = ""


def predict(run: Run, videos: list[Path], *, weights: Path | None = None, device: str = "auto") -> Iterator[Prediction]:
    """Yield a prediction per video, in order; the probabilities are the mean over the run's folds and seeds.

    Raises CeflError when the encoder the run was trained with is not at hand.
    """
    wishes = wishes_of(run, weights, device)
    settings = settle(wishes)
    head = run.head().to(torch.device(wishes.device))
    jobs = [Job(str(path), path) for path in videos if path.exists()]
    features = extract_videos(jobs, make_detector(wishes), make_encoder(wishes), settings)
    for path in videos:
        if not path.exists():
            yield _failed(path, "no such file")
            continue
        video = next(features)
        yield judge(run, head, path, video)


def wishes_of(run: Run, weights: Path | None, device: str) -> Wishes:
    """Return stage one's settings that the run's features were made with."""
    made = ExtractionSettings(**json.loads(run.about["features"]["settings"]))
    place = weights or weights_file(made.encoder)
    encoder = describe_encoder(place)
    if encoder.sha256 != made.encoder_sha256:
        raise CeflError(
            f"{place}: not the encoder this run was trained with ({made.encoder} {made.encoder_sha256[:8]}…, this is "
            f"{encoder.name} {encoder.sha256[:8]}…); give the right file with --weights, or train the run again"
        )
    from ..stages.device import checked_device

    chosen = str(checked_device(device))
    given = made.faces == "given"
    return Wishes(
        weights=place, faces=made.faces, detector=made.detector or "retinaface", side=made.detector_side or 640,
        minimum_score=made.minimum_score or 0.5, align="landmarks" if given else made.align, size=made.size,
        device=chosen, precision=made.precision,
    )  # fmt: skip


def judge(run: Run, head: torch.nn.Module, path: Path, video: VideoFeatures) -> Prediction:
    """Return what the run's models together say of one video's features."""
    found = int((video.frame_status != 0).sum())
    if video.status not in USABLE:
        return _failed(path, video.note, len(video.features), found, video.fps)
    device = next(head.parameters()).device
    recipe, models = run.recipe, len(run.about["models"])
    data = Data(
        torch.from_numpy(video.features).to(device), torch.tensor([0], device=device),
        torch.tensor([len(video.features)], device=device), torch.tensor([0], device=device), len(run.labels),
    )  # fmt: skip
    said = evaluate(head, data, torch.zeros(models, 1, dtype=torch.long, device=device), recipe, run.about["protocol"]["views"])
    probabilities = said.probabilities.mean(dim=0)[0]
    best = int(probabilities.argmax())
    intensity: list[tuple[float, float, float]] = []
    located = None
    if said.intensity is not None:
        shares = said.intensity[:, 0, best if said.intensity.shape[2] > 1 else 0].mean(dim=0)
        ends = sub_video_frames(torch.tensor([len(video.features)]), recipe.clips, recipe.longer)[0]
        intensity = [
            (int(first) / video.fps, (int(last) + 1) / video.fps, float(share))
            for (first, last), share in zip(ends.tolist(), shares, strict=True)
        ]
        located = intensity[int(shares.argmax())][:2]
    by_label = {label: float(p) for label, p in zip(run.labels, probabilities, strict=True)}
    return Prediction(path, len(video.features), found, video.fps, run.labels[best], by_label, intensity, located)


def _failed(path: Path, reason: str, frames: int = 0, found: int = 0, fps: float = 0.0) -> Prediction:
    return Prediction(path, frames, found, fps, "", {}, [], None, reason)
