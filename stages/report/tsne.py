"""Figure 7: t-SNE of the heads' representations, each video by a model that did not train on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from ...cache.features import FeatureTable
from ..heads.evaluate import evaluate
from ..heads.feature_bank import VideoDataset, join_features
from ..heads.run_io import Run
from ..manifest.manifest import Manifest
from .tables import run_names

TSNE_HEADS = ("cefl", "fan", "lstm", "mean")
"""The four representations of figure 7, in the paper's order."""
MAX_VIDEOS = 1000
"""Of a larger data set an evenly drawn sample is shown."""
NUM_COMPONENTS = 50
"""Principal components that are kept of a representation before t-SNE."""
PERPLEXITY = 30.0


@dataclass(frozen=True)
class TSNEResult:
    """``points``: columns head, id, label, predicted, right, fold, x, y. ``silhouette``: per head, how well labels are
    apart in the representation itself (-1..1), before t-SNE. ``videos``: how many are shown, ``of`` how many."""

    points: pd.DataFrame
    silhouette: dict[str, float]
    videos: int
    total: int


def compute_tsne(runs: Sequence[Run], manifest: Manifest, table: FeatureTable, seed: int) -> TSNEResult | None:
    """Return the t-SNE of each run's representation, or None where fewer than five videos have features.

    Models of different folds do not share axes. So each model sees all the videos, its representation is reduced to
    principal components and turned (rotation and reflection only, no labels involved) onto that of the first fold's
    model; then of each model only the videos of its own test fold are kept. The first seed's models are taken.
    """
    videos = join_features(manifest, table, torch.device("cpu"))
    usable = np.flatnonzero(videos.index >= 0)
    if len(usable) < 5:
        return None
    if len(usable) > MAX_VIDEOS:
        usable = np.sort(np.random.default_rng(seed).choice(usable, MAX_VIDEOS, replace=False))
    parts, silhouettes = [], {}
    for name, run in zip(run_names(runs), runs, strict=True):
        predictions = run.predictions()
        mine = predictions[predictions.seed == predictions.seed.iloc[0]].set_index("id")
        shown = [i for i in usable if videos.entries[i].id in mine.index]
        lines = mine.loc[[videos.entries[i].id for i in shown]]
        space = _aligned_components(run, videos, np.array(shown), lines["fold"].tolist(), seed)
        perplexity = min(PERPLEXITY, (len(space) - 1) / 3)
        flat = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(space)
        silhouettes[name] = _silhouette(space, lines["label"].tolist())
        parts.append(
            pd.DataFrame(
                {
                    "head": name,
                    "id": lines.index,
                    "label": lines["label"].tolist(),
                    "predicted": lines["predicted"].tolist(),
                    "correct": lines["correct"].astype(bool).tolist(),
                    "fold": lines["fold"].tolist(),
                    "x": flat[:, 0],
                    "y": flat[:, 1],
                }
            )
        )
    return TSNEResult(pd.concat(parts, ignore_index=True), silhouettes, len(parts[0]), int((videos.index >= 0).sum()))


def _aligned_components(run: Run, videos: VideoDataset, shown: np.ndarray, folds: list[str], seed: int) -> np.ndarray:
    """Return (videos, components): each video as the model that was tested on it represents it, on common axes."""
    head, models = run.head(), run.config["models"]
    places = torch.from_numpy(videos.index[shown]).expand(len(models), -1)
    every = evaluate(head, videos.bank, places, run.train_config).embedding.double().numpy()
    first_seed = models[0]["seed"]
    space, common = None, None
    for number, model in enumerate(models):
        if model["seed"] != first_seed:
            continue
        components = PCA(min(NUM_COMPONENTS, *every[number].shape), random_state=seed).fit_transform(every[number])
        if common is None or space is None:
            common, space = components, np.zeros_like(components)
        turned = components @ procrustes_rotation(components, common)
        own = np.array([fold == model["fold"] for fold in folds])
        space[own] = turned[own]
    if space is None:
        raise ValueError("a run without models has no representation")
    return space


def procrustes_rotation(mine: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix (d, d) that brings ``mine`` (n, d) closest to ``common`` (n, d): Procrustes'
    problem."""
    left, _, right = np.linalg.svd(mine.T @ common)
    return left @ right


def _silhouette(space: np.ndarray, labels: list[str]) -> float:
    kinds = len(set(labels))
    return float(silhouette_score(space, labels)) if 1 < kinds < len(labels) else float("nan")
