"""Predictions table: one row per test video, fold and seed.

Columns: id, subject, label, status, fold, seed, predicted ('' if the video has no features), correct, p_<label>
(probabilities); for heads with an intensity map also located_clip and located_clip_true (clips from 1, in the map of the
predicted and of the true label) and intensity_1 … intensity_n (the map of the predicted label); for videos with a known apex
also apex_hit and apex_hit_true (is it in the located clip?) and apex_chance (fraction of the clips that contain it; 0 if no
clip of the test view can hold it).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from .ceflnet import located_index
from .clip_sampling import clip_frame_spans, map_start
from .evaluate import EvalOutput
from .feature_bank import VideoDataset
from .train import ModelSpec
from .train_config import TrainConfig


def predictions_frame(
    dataset: VideoDataset,
    model: ModelSpec,
    m: int,
    test: np.ndarray,
    outputs: EvalOutput,
    config: TrainConfig,
    tta_views: int = 1,
) -> pd.DataFrame:
    """Return the rows of one model's test videos.

    ``m`` is the model's index in ``outputs``, whose videos are those of ``test`` (indices of entries) that have features,
    in that order.
    """
    start = map_start(config, tta_views)
    rows: list[dict[str, Any]] = []
    b = 0
    for i in test:
        entry = dataset.entries[i]
        row: dict[str, Any] = {"id": entry.id, "subject": entry.subject, "label": entry.label}
        row |= {"status": dataset.status[i], "fold": model.fold, "seed": model.seed}
        if dataset.index[i] < 0:
            rows.append(row | {"predicted": "", "correct": False})
        else:
            rows.append(row | _predict_row(dataset, i, outputs, m, b, config, start))
            b += 1
    return pd.DataFrame(rows)


def _predict_row(
    dataset: VideoDataset, i: int, outputs: EvalOutput, m: int, b: int, config: TrainConfig, start: int
) -> dict[str, Any]:
    entry, labels, probabilities = dataset.entries[i], dataset.labels, outputs.probabilities[m, b]
    predicted, true = int(probabilities.argmax()), labels.index(entry.label)
    row: dict[str, Any] = {"predicted": labels[predicted], "correct": predicted == true}
    row |= {f"p_{label}": float(p) for label, p in zip(labels, probabilities, strict=True)}
    if outputs.intensity is None:
        return row
    intensity = outputs.intensity[m, b]  # (maps, n)
    located, located_true = (int(located_index(intensity, torch.tensor(label))) for label in (predicted, true))
    row |= {"located_clip": located + 1, "located_clip_true": located_true + 1}
    row |= {
        f"intensity_{n}": float(a) for n, a in enumerate(intensity[predicted if len(intensity) > 1 else 0], start=1)
    }
    if entry.apex:
        hits = clips_with_apex(int(dataset.bank.length[dataset.index[i]]), int(entry.apex), config, start)
        row |= {"apex_hit": hits[located], "apex_hit_true": hits[located_true], "apex_chance": float(np.mean(hits))}
    return row


def clips_with_apex(length: int, apex: int, config: TrainConfig, start: int) -> list[bool]:
    """Return for each clip of the view that begins at slot ``start`` whether the apex frame is within its span of frames."""
    spans = clip_frame_spans(torch.tensor([length]), config.num_clips, config.long_videos, start)[0].tolist()
    return [first <= apex <= last for first, last in spans]
