"""Figure 7: t-SNE of the heads' embeddings, each video embedded by a model that was not trained on it."""

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
"""The four heads of figure 7, in the paper's order."""
MIN_VIDEOS = 5
MAX_VIDEOS = 1000
"""A larger data set is sampled at random."""
NUM_COMPONENTS = 50
"""Principal components of an embedding that go into t-SNE."""
PERPLEXITY = 30.0


@dataclass(frozen=True)
class TSNEResult:
    """``points``: columns run, id, label, predicted, correct, fold, x, y. ``silhouette``: per run, of the labels in the
    principal components (-1..1), before t-SNE. ``num_videos`` of ``total`` videos with features are in it."""

    points: pd.DataFrame
    silhouette: dict[str, float]
    num_videos: int
    total: int


def compute_tsne(runs: Sequence[Run], manifest: Manifest, table: FeatureTable, seed: int) -> TSNEResult | None:
    """Return the t-SNE of each run's embeddings, or None for fewer than MIN_VIDEOS videos with features.

    Models of different folds do not share axes. So each model embeds all videos, the embeddings are reduced to principal
    components and aligned to those of the first fold's model by a rotation or reflection, which does not depend on labels.
    Then only the videos of the model's own test fold are used. Only the first seed's models are used.
    """
    videos = join_features(manifest, table, torch.device("cpu"))
    usable = np.flatnonzero(videos.index >= 0)
    total = len(usable)
    if total < MIN_VIDEOS:
        return None
    if total > MAX_VIDEOS:
        usable = np.sort(np.random.default_rng(seed).choice(usable, MAX_VIDEOS, replace=False))
    parts, silhouette = [], {}
    for name, run in zip(run_names(runs), runs, strict=True):
        predictions = run.predictions()
        by_id = predictions[predictions.seed == predictions.seed.iloc[0]].set_index("id")
        entries = np.array([i for i in usable if videos.entries[i].id in by_id.index])
        points = by_id.loc[[videos.entries[i].id for i in entries], ["label", "predicted", "correct", "fold"]]
        components = _aligned_components(run, videos, entries, points["fold"].to_numpy(), seed)
        perplexity = min(PERPLEXITY, (len(components) - 1) / 3)
        coordinates = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
        silhouette[name] = _silhouette(components, points["label"].tolist())
        points = points.reset_index().assign(x=coordinates[:, 0], y=coordinates[:, 1])
        points.insert(0, "run", name)
        parts.append(points)
    return TSNEResult(pd.concat(parts, ignore_index=True), silhouette, len(parts[0]), total)


def _aligned_components(
    run: Run, videos: VideoDataset, entries: np.ndarray, folds: np.ndarray, seed: int
) -> np.ndarray:
    """Return (videos, components): each video as embedded by the model that was tested on it, on common axes."""
    models = run.config["models"]
    index = torch.from_numpy(videos.index[entries]).expand(len(models), -1)
    embeddings = evaluate(run.head(), videos.bank, index, run.train_config).embedding.double().numpy()
    reference: np.ndarray | None = None
    result = np.zeros((len(entries), min(NUM_COMPONENTS, *embeddings.shape[1:])))
    for model, embedding in zip(models, embeddings, strict=True):
        if model["seed"] != models[0]["seed"]:
            continue
        components: np.ndarray = PCA(result.shape[1], random_state=seed).fit_transform(embedding)
        if reference is None:
            reference = components
        aligned = components @ procrustes_rotation(components, reference)
        is_tested = folds == model["fold"]
        result[is_tested] = aligned[is_tested]
    return result


def procrustes_rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix R (d, d) that minimizes ||source R - target|| for arrays (n, d)."""
    left, _, right = np.linalg.svd(source.T @ target)
    return left @ right


def _silhouette(components: np.ndarray, labels: list[str]) -> float:
    return float(silhouette_score(components, labels)) if 1 < len(set(labels)) < len(labels) else float("nan")
