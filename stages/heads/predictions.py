"""Predictions table: one row per test video, fold and seed.

One row per video, fold and seed: id, subject, label, status, fold, seed, predicted ('' when stage one found nothing to
judge), right, p_<label> (probabilities), and for heads with an intensity map: located (clip from 1), located_true_label,
a_1 … a_n (the map of the predicted label), holds_apex, holds_apex_true_label and chance (empty where no apex is known).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from .clip_sampling import sub_video_frames
from .evaluate import Said
from .feature_bank import Videos
from .layers import Output
from .train import Model, Recipe


def predictions_of(
    videos: Videos, model: Model, place: int, test: np.ndarray, said: Said, recipe: Recipe
) -> pd.DataFrame:
    """Return the rows of one model's test videos; ``place`` is its index in ``said``, ``test`` positions of rows.

    ``said`` holds the usable ones of ``test`` in that order.
    """
    usable = [i for i in test if videos.place[i] >= 0]
    records = {i: _judged(videos, i, said, place, b, recipe) for b, i in enumerate(usable)}
    rows = []
    for i in test:
        row = videos.rows[i]
        base = {
            "id": row.id, "subject": row.subject, "label": row.label, "status": videos.status[i],
            "fold": model.fold, "seed": model.seed,
        }  # fmt: skip
        judged = records.get(i, {"predicted": "", "right": False})
        rows.append({**base, **judged})
    return pd.DataFrame(rows)


def _judged(videos: Videos, i: int, said: Said, m: int, b: int, recipe: Recipe) -> dict[str, Any]:
    row, labels = videos.rows[i], videos.labels
    probabilities = said.probabilities[m, b]
    best = int(probabilities.argmax())
    record: dict[str, Any] = {"predicted": labels[best], "right": labels[best] == row.label}
    record |= {f"p_{label}": float(p) for label, p in zip(labels, probabilities, strict=True)}
    if said.intensity is None:
        return record
    output = Output(
        said.probabilities[m : m + 1, b : b + 1],
        said.embedding[m : m + 1, b : b + 1],
        said.intensity[m : m + 1, b : b + 1],
    )
    located = _located(output, best)
    located_true = _located(output, labels.index(row.label))
    record |= {"located": located + 1, "located_true_label": located_true + 1}
    maps = said.intensity.shape[2]
    shown = said.intensity[m, b, best if maps > 1 else 0]
    record |= {f"a_{clip}": float(a) for clip, a in enumerate(shown, start=1)}
    if row.apex:
        holds = clips_with_apex(int(videos.data.length[videos.place[i]]), int(row.apex), recipe)
        record |= {
            "holds_apex": bool(holds[located]),
            "holds_apex_true_label": bool(holds[located_true]),
            "chance": float(np.mean(holds)),
        }
    return record


def _located(output: Output, label: int) -> int:
    found = output.located_clip(torch.tensor([[label]]))
    return int(found[0, 0]) if found is not None else 0


def clips_with_apex(length: int, apex: int, recipe: Recipe) -> list[bool]:
    """Tell for each sub-video of the test view whether its span of frames holds the apex frame."""
    ends = sub_video_frames(torch.tensor([length]), recipe.clips, recipe.longer)[0].tolist()
    return [first <= apex <= last for first, last in ends]


def tidy(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put the tables of all models together, one row per video, fold and seed, in the order given."""
    return pd.concat(tables, ignore_index=True)
