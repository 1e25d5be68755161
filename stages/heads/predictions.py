"""Predictions table: one row per test video, fold and seed.

One row per video, fold and seed: id, subject, label, status, fold, seed, predicted ('' when stage one found nothing to
judge), right, p_<label> (probabilities), and for heads with an intensity map: located (clip from 1), located_clip_true,
a_1 … a_n (the map of the predicted label), apex_hit, apex_hit_true and chance (empty where no apex is known).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from .clip_sampling import clip_frame_spans
from .evaluate import HeadOutputs
from .feature_bank import VideoDataset
from .layers import HeadOutput
from .train import ModelSpec
from .train_config import TrainConfig


def predictions_frame(
    videos: VideoDataset, model: ModelSpec, place: int, test: np.ndarray, said: HeadOutputs, config: TrainConfig
) -> pd.DataFrame:
    """Return the rows of one model's test videos; ``place`` is its index in ``said``, ``test`` positions of rows.

    ``said`` holds the usable ones of ``test`` in that order.
    """
    usable = [i for i in test if videos.index[i] >= 0]
    records = {i: _prediction_row(videos, i, said, place, b, config) for b, i in enumerate(usable)}
    rows = []
    for i in test:
        row = videos.entries[i]
        base = {
            "id": row.id, "subject": row.subject, "label": row.label, "status": videos.status[i],
            "fold": model.fold, "seed": model.seed,
        }  # fmt: skip
        judged = records.get(i, {"predicted": "", "correct": False})
        rows.append({**base, **judged})
    return pd.DataFrame(rows)


def _prediction_row(
    videos: VideoDataset, i: int, said: HeadOutputs, m: int, b: int, config: TrainConfig
) -> dict[str, Any]:
    row, labels = videos.entries[i], videos.labels
    probabilities = said.probabilities[m, b]
    best = int(probabilities.argmax())
    record: dict[str, Any] = {"predicted": labels[best], "correct": labels[best] == row.label}
    record |= {f"p_{label}": float(p) for label, p in zip(labels, probabilities, strict=True)}
    if said.intensity is None:
        return record
    output = HeadOutput(
        said.probabilities[m : m + 1, b : b + 1],
        said.embedding[m : m + 1, b : b + 1],
        said.intensity[m : m + 1, b : b + 1],
    )
    located = _located(output, best)
    located_true = _located(output, labels.index(row.label))
    record |= {"located_clip": located + 1, "located_clip_true": located_true + 1}
    maps = said.intensity.shape[2]
    shown = said.intensity[m, b, best if maps > 1 else 0]
    record |= {f"intensity_{clip}": float(a) for clip, a in enumerate(shown, start=1)}
    if row.apex:
        holds = clips_with_apex(int(videos.bank.length[videos.index[i]]), int(row.apex), config)
        record |= {
            "apex_hit": bool(holds[located]),
            "apex_hit_true": bool(holds[located_true]),
            "apex_chance": float(np.mean(holds)),
        }
    return record


def _located(output: HeadOutput, label: int) -> int:
    found = output.located_clip(torch.tensor([[label]]))
    return int(found[0, 0]) if found is not None else 0


def clips_with_apex(length: int, apex: int, config: TrainConfig) -> list[bool]:
    """Tell for each sub-video of the test view whether its span of frames holds the apex frame."""
    ends = clip_frame_spans(torch.tensor([length]), config.num_clips, config.long_videos)[0].tolist()
    return [first <= apex <= last for first, last in ends]
