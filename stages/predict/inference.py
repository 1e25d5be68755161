"""Sliding-window inference of a trained run on the features of one face track."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...cache.features import TRAINABLE_STATUSES, FrameStatus, VideoFeatures, VideoStatus
from ..extract.extractor import MAX_MISSING_FRACTION
from ..heads.clip_sampling import NUM_SLOTS, clip_frame_spans
from ..heads.evaluate import evaluate
from ..heads.feature_bank import FeatureBank
from ..heads.run_io import Run

WINDOW_STRIDE = 35
"""Frames from one window to the next. Windows are 105 frames long, so neighbours share 70 and every frame is in up to
three."""
BATCH_SIZE = 64

TimeSpan = tuple[float, float]
ClipIntensity = tuple[float, float, float]


@dataclass(frozen=True)
class WindowPrediction:
    """What is said of a stretch of frames. ``begin`` and ``end`` are seconds; ``intensity`` holds (begin, end, share)
    of each clip in the map of ``label``, shares summing to one; ``label`` is '' where too few frames show the face."""

    first_frame: int
    frames: int
    begin: float
    end: float
    label: str
    probabilities: dict[str, float]
    intensity: list[ClipIntensity]
    located: TimeSpan | None


@dataclass(frozen=True)
class Prediction:
    """What a run says of one person in one video; times are seconds from its start, ``failure`` a reason to say
    nothing.

    ``probabilities`` by label: of the run's own rule for a video of up to 105 frames, else the mean over the windows
    with a face. ``intensity`` and ``located`` are those of the video, or of the window that is surest of ``label``.
    ``own_rule``: what the run's test rule alone (it looks at 105 slots of a longer video) says; the same for short
    ones. ``person``: 0 for the main face, else 1, 2, … in the order of appearance; ``begin``, ``end``: when it is
    there."""

    path: Path
    frames: int
    frames_with_face: int
    fps: float
    label: str
    probabilities: dict[str, float]
    intensity: list[ClipIntensity]
    located: TimeSpan | None
    failure: str = ""
    person: int = 0
    begin: float = 0.0
    end: float = 0.0
    aggregation: str = ""
    full_video_label: str = ""
    windows: tuple[WindowPrediction, ...] = ()


class Predictor:
    """All models of a run, ready to be asked: probabilities and maps are the mean over folds and seeds."""

    def __init__(self, run: Run, device: str) -> None:
        self.run, self.labels = run, run.labels
        self._device = torch.device(device)
        self._head = run.head().to(self._device)

    def __call__(self, path: Path, video: VideoFeatures, first_frame: int = 0) -> Prediction:
        """Return what the models say of a person's features; ``first_frame`` is where in the file they begin."""
        count, fps = len(video.features), video.fps or 25.0
        found = int((video.frame_status != FrameStatus.MISSING).sum())
        begin, end = first_frame / fps, (first_frame + count) / fps
        if video.status == VideoStatus.UNREADABLE or (video.status not in TRAINABLE_STATUSES and count <= NUM_SLOTS):
            return failed_prediction(path, video.note, count, found, video.fps)
        starts, length = window_starts(count)
        windows = self._slide(video, starts, length, first_frame, fps)
        judged = [window for window in windows if window.label]
        if not judged:
            return failed_prediction(
                path, f"no stretch of {length} frames shows the face in half of them", count, found, video.fps
            )
        mean = {label: float(np.mean([window.probabilities[label] for window in judged])) for label in self.labels}
        label = max(mean, key=mean.__getitem__)
        surest = max(judged, key=lambda window: window.probabilities[label])
        own_rule = label if len(starts) == 1 else self._predict_full(video)
        rule = (
            "the whole video"
            if len(starts) == 1
            else f"{len(judged)} windows of {NUM_SLOTS} frames, {WINDOW_STRIDE} apart"
        )
        return Prediction(
            path,
            count,
            found,
            video.fps,
            label,
            mean,
            surest.intensity,
            surest.located,
            begin=begin,
            end=end,
            aggregation=rule,
            full_video_label=own_rule,
            windows=tuple(windows),
        )

    def _slide(
        self, video: VideoFeatures, starts: list[int], length: int, first_frame: int, fps: float
    ) -> list[WindowPrediction]:
        config = self.run.train_config
        ends = clip_frame_spans(torch.tensor([length]), config.num_clips, config.long_videos)[0].tolist()
        windows = []
        for some in (starts[i : i + BATCH_SIZE] for i in range(0, len(starts), BATCH_SIZE)):
            probabilities, maps = self._infer(video.features, some, length)
            for place, start in enumerate(some):
                shown = video.frame_status[start : start + length] != FrameStatus.MISSING
                zero = first_frame + start
                begin, end = zero / fps, (zero + length) / fps
                if len(starts) > 1 and shown.mean() < 1 - MAX_MISSING_FRACTION:
                    windows.append(WindowPrediction(zero, length, begin, end, "", {}, [], None))
                    continue
                best = int(probabilities[place].argmax())
                by_label = {label: float(p) for label, p in zip(self.labels, probabilities[place], strict=True)}
                clips: list[ClipIntensity] = []
                if maps is not None:
                    shares = maps[place, best if maps.shape[1] > 1 else 0]
                    clips = [
                        ((zero + a) / fps, (zero + b + 1) / fps, float(s))
                        for (a, b), s in zip(ends, shares, strict=True)
                    ]
                located = max(clips, key=lambda clip: clip[2])[:2] if clips else None
                windows.append(WindowPrediction(zero, length, begin, end, self.labels[best], by_label, clips, located))
        return windows

    def _predict_full(self, video: VideoFeatures) -> str:
        if video.status not in TRAINABLE_STATUSES:
            return ""
        return self.labels[int(self._infer(video.features, [0], len(video.features))[0][0].argmax())]

    def _infer(self, features: np.ndarray, starts: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return probabilities (windows, labels) and maps (windows, maps, clips) or None, the mean over all models."""
        count, models = len(starts), len(self.run.config["models"])
        data = FeatureBank(
            torch.from_numpy(features).to(self._device),
            torch.tensor(starts, device=self._device),
            torch.full((count,), length, device=self._device),
            torch.zeros(count, dtype=torch.long, device=self._device),
            len(self.labels),
        )
        videos = torch.arange(count, device=self._device).expand(models, count)
        said = evaluate(self._head, data, videos, self.run.train_config, self.run.cv.tta_views)
        return said.probabilities.mean(dim=0), None if said.intensity is None else said.intensity.mean(dim=0)


def window_starts(frames: int) -> tuple[list[int], int]:
    """Return where windows begin and how long they are: one of all frames up to 105, else 105 frames every STEP.

    The last one ends with the video, so that no frame is left out.

    >>> window_starts(80), window_starts(200)
    (([0], 80), ([0, 35, 70, 95], 105))
    """
    if frames <= NUM_SLOTS:
        return [0], frames
    return [*range(0, frames - NUM_SLOTS, WINDOW_STRIDE), frames - NUM_SLOTS], NUM_SLOTS


def failed_prediction(path: Path, reason: str, frames: int = 0, found: int = 0, fps: float = 0.0) -> Prediction:
    return Prediction(path, frames, found, fps, "", {}, [], None, reason)
