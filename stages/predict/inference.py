"""Sliding-window inference of a trained run on the features of one face track."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...cache.features import TRAINABLE_STATUSES, FrameStatus, VideoFeatures, VideoStatus, frame_edges
from ..extract.face_tracks import MAX_MISSING_FRACTION
from ..heads.calibration import calibrate
from ..heads.clip_sampling import clip_frame_spans, map_start
from ..heads.evaluate import evaluate
from ..heads.feature_bank import FeatureBank
from ..heads.run_io import Run
from ..slots import NUM_SLOTS
from .prediction import ClipIntensity, FaceTrack, Prediction, WindowPrediction
from .tracker import MIN_HITS

WINDOW_STRIDE = 35
"""Frames from one window to the next. Windows are 105 frames long, so every frame is in up to three."""
BATCH_SIZE = 64
"""Windows per forward pass."""


class Predictor:
    """Ensemble over the folds and seeds of a run: probabilities and intensity maps are the mean over its models.

    The probabilities of each model are taken at ``temperature`` first; None: as they are.
    """

    def __init__(self, run: Run, device: str, temperature: float | None = None) -> None:
        self.run, self.labels, self.temperature = run, run.labels, temperature
        self._device = torch.device(device)
        self._head = run.head().to(self._device)

    def __call__(self, path: Path, video: VideoFeatures, first_frame: int = 0) -> Prediction:
        """Return the prediction for the features of a face track that begins at ``first_frame`` of the file."""
        count = len(video.features)
        with_face = int((video.frame_status != FrameStatus.MISSING).sum())
        edges = tuple(frame_edges(video.time, video.fps).tolist())
        face = FaceTrack(video.frame_status, video.score, video.box, video.landmarks)
        note = f"truncated: {video.note}" if video.status == VideoStatus.TRUNCATED else video.note
        failed = Prediction(
            path, count, with_face, video.fps,
            status=video.status, first_frame=first_frame, note=note, rotation=video.rotation, edges=edges, face=face,
            labels=self.labels, temperature=self.temperature,
        )  # fmt: skip
        if video.status == VideoStatus.UNREADABLE or (video.status not in TRAINABLE_STATUSES and count <= NUM_SLOTS):
            return replace(failed, failure=video.note + _parts_hint(video), note="")
        windows = self._slide(video, first_frame)
        valid = [window for window in windows if window.label]
        if not valid:
            reasons = [video.note, f"no {NUM_SLOTS}-frame window has a face in at least half its frames"]
            reason = "; ".join(filter(None, reasons)) if with_face or not video.note else video.note
            return replace(failed, failure=reason + _parts_hint(video), note="")
        mean = {label: float(np.mean([window.probabilities[label] for window in valid])) for label in self.labels}
        label = max(mean, key=mean.__getitem__)
        best = max(valid, key=lambda window: window.probabilities[label])
        single = len(windows) == 1
        aggregation = f"mean of {len(valid)} windows of {NUM_SLOTS} frames, stride {WINDOW_STRIDE}"
        return Prediction(
            path,
            count,
            with_face,
            video.fps,
            label,
            mean,
            best.intensity,
            best.located_time,
            video.status,
            begin=windows[0].begin,
            end=windows[-1].end,
            aggregation="one window of all frames" if single else aggregation,
            full_video_label=label if single else self._predict_full(video),
            windows=tuple(windows),
            first_frame=first_frame,
            note=note,
            rotation=video.rotation,
            edges=edges,
            face=face,
            labels=self.labels,
            temperature=self.temperature,
        )

    def _slide(self, video: VideoFeatures, first_frame: int) -> list[WindowPrediction]:
        """Return a prediction per window, in order; the features begin at ``first_frame`` of the file."""
        config, edges = self.run.train_config, frame_edges(video.time, video.fps).tolist()
        starts, length = window_starts(len(video.features))
        start = map_start(config, self.run.cv.tta_views)
        spans = clip_frame_spans(torch.tensor([length]), config.num_clips, config.long_videos, start)[0].tolist()
        windows = []
        for batch in (starts[i : i + BATCH_SIZE] for i in range(0, len(starts), BATCH_SIZE)):
            probabilities, maps = self._infer(video.features, batch, length)
            for index, start in enumerate(batch):
                window = WindowPrediction(first_frame + start, length, edges[start], edges[start + length])
                has_face = video.frame_status[start : start + length] != FrameStatus.MISSING
                if len(starts) > 1 and has_face.mean() < 1 - MAX_MISSING_FRACTION:
                    windows.append(window)
                    continue
                best = int(probabilities[index].argmax())
                by_label = {label: float(p) for label, p in zip(self.labels, probabilities[index], strict=True)}
                intensity: list[ClipIntensity] = []
                if maps is not None:
                    weights = maps[index, best if maps.shape[1] > 1 else 0].tolist()
                    intensity = [
                        (edges[start + begin], edges[start + last + 1], weight)
                        for (begin, last), weight in zip(spans, weights, strict=True)
                    ]
                located_time = max(intensity, key=lambda clip: clip[2])[:2] if intensity else None
                label = self.labels[best]
                windows.append(
                    replace(window, label=label, probabilities=by_label, intensity=intensity, located_time=located_time)
                )
        return windows

    def _predict_full(self, video: VideoFeatures) -> str:
        """Return the label of the run's own test procedure; '' for a video that it leaves out."""
        if video.status not in TRAINABLE_STATUSES:
            return ""
        return self.labels[int(self._infer(video.features, [0], len(video.features))[0][0].argmax())]

    def _infer(self, features: np.ndarray, starts: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return probabilities (windows, labels) and maps (windows, maps, clips) or None, the mean over all models."""
        count, models = len(starts), len(self.run.config["models"])
        bank = FeatureBank(
            torch.from_numpy(features).to(self._device),
            torch.tensor(starts, device=self._device),
            torch.full((count,), length, device=self._device),
            torch.zeros(count, dtype=torch.long, device=self._device),
            len(self.labels),
        )
        videos = torch.arange(count, device=self._device).expand(models, count)
        outputs = evaluate(self._head, bank, videos, self.run.train_config, self.run.cv.tta_views)
        maps = outputs.intensity
        probabilities = calibrate(outputs.probabilities, self.temperature)
        return probabilities.mean(dim=0), None if maps is None else maps.mean(dim=0)


def _parts_hint(video: VideoFeatures) -> str:
    """Return what predicts the parts of a video that show a face, '' if there are none."""
    shown = (video.frame_status != FrameStatus.MISSING).astype(np.int8)
    edges = np.flatnonzero(np.diff(shown, prepend=0, append=0))
    longest = int((edges[1::2] - edges[::2]).max(initial=0))
    if video.status != VideoStatus.NO_FACE or longest < MIN_HITS:
        return ""
    return f"; give --all-faces to predict the parts with a face in {MIN_HITS} frames or more"


def window_starts(frames: int) -> tuple[list[int], int]:
    """Return the first frames of the windows and their length: one of all frames up to 105, else 105 frames.

    Windows are WINDOW_STRIDE apart; the last one ends with the video.

    >>> window_starts(80), window_starts(200)
    (([0], 80), ([0, 35, 70, 95], 105))
    """
    if frames <= NUM_SLOTS:
        return [0], frames
    return [*range(0, frames - NUM_SLOTS, WINDOW_STRIDE), frames - NUM_SLOTS], NUM_SLOTS
