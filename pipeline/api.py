"""Python interface: extract, load_table, fit_folds, predict and CEFLNet, all also names of ``ceflpipe`` itself.

>>> import ceflpipe
>>> done = ceflpipe.extract("list.csv", "features.h5", encoder="encoder.safetensors", size=64)
>>> done.failed
[]
>>> run = ceflpipe.fit_folds("list.csv", "features.h5", "run", folds=2, clips=3, frames=2, epochs=2)
>>> [prediction.label in run.labels for prediction in ceflpipe.predict(run, ["v0.mp4"], encoder="encoder.safetensors")]
[True]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..cache.features import FeatureTable
from ..cache.hdf5 import read_table
from ..stages.device import checked_device
from ..stages.extract.extract import Extraction
from ..stages.extract.extract import extract as _extract
from ..stages.extract.extract_config import Wishes, place_of
from ..stages.extract.tasks import Done
from ..stages.heads.ceflnet import CEFL
from ..stages.heads.cross_validation import Protocol, train_heads
from ..stages.heads.layers import Noise, initialise
from ..stages.heads.run_io import Run, read_run
from ..stages.heads.train import Epoch
from ..stages.manifest.manifest import Manifest, read_manifest
from ..stages.predict.inference import Prediction
from ..stages.predict.predict import predict as _predict
from .config import load_train
from .executor import cores, processes
from .paths import run_encoder_file
from .training import recipe_of

__all__ = ["CEFLNet", "extract", "fit_folds", "load_table", "predict"]

Where = str | Path


def extract(
    manifest: Where | Manifest,
    cache: Where,
    *,
    encoder: Where,
    root: Where | None = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    workers: int = 1,
    on_video: Callable[[Done], None] = lambda done: None,
    **wishes: Any,
) -> Extraction:
    """STAGE ONE: bring a feature cache up to date with a list of videos (a CSV with the columns path,label,…).

    ``encoder``: a file made by ``ceflpipe encoder``. ``workers``: processes; 0 for one per core; in a script more than one
    needs the usual ``if __name__ == "__main__"``. ``wishes``: fields of Wishes, such as size=224 (pixels), align="landmarks",
    faces="detect", precision="auto", backend="torch". Finished videos are not done again; ``failed`` lists (id, status, note).
    Raises CeflError when list or weights cannot be used, or another process writes the cache.

    >>> extract("list.csv", "features.h5", encoder="encoder.safetensors", size=64).videos
    6
    """
    backend = wishes.pop("backend", "torch")
    chosen = Wishes(Path(encoder), device=place_of(backend, device), backend=backend, **wishes)
    count = workers or cores()
    mapper = processes(count) if count > 1 else None
    return _extract(
        _manifest(manifest, root, labels), chosen, Path(cache), mapper=mapper, workers=count, on_video=on_video
    )


def load_table(cache: Where, *, verify: bool = True) -> FeatureTable:
    """Load a feature cache into memory: ``features`` (sum of T, 512) float16, ``frames_of(id)`` the rows of a video.

    Raises CeflError when it is no cache, or (``verify``) its bytes are not those that were written.

    >>> table = load_table("features.h5")
    >>> table.features[table.frames_of("v0")].shape
    (12, 512)
    """
    return read_table(Path(cache), verify=verify)


class Expression(NamedTuple):
    """What CEFLNet says of B videos: logits (B, C); embedding (B, C * width); intensity (B, C, clips), the map A, summing to
    one over clips; frame_weights (B, clips, frames) in 0..1."""

    logits: Tensor
    embedding: Tensor
    intensity: Tensor
    frame_weights: Tensor


class CEFLNet(nn.Module):
    """The trainable part of CEFLNet on features: SAL (equation 1), LRL (2 and 3), EIAN (4 to 10), one model.

    >>> head = CEFLNet(classes=6)
    >>> output = head(torch.rand(8, 7, 5, 512))  # 8 videos of 7 clips of 5 frames
    >>> output.logits.shape, output.intensity.shape
    (torch.Size([8, 6]), torch.Size([8, 6, 7]))
    """

    def __init__(self, classes: int, width: int = 512, seed: int = 0) -> None:
        super().__init__()
        self.head = CEFL(1, width, classes)
        initialise(self.head, [torch.Generator().manual_seed(seed)])

    def forward(self, frames: Tensor) -> Expression:
        """Return what the head says of frames (B, clips, frames, width)."""
        said = self.head(frames[None], Noise(None))
        return Expression(said.logits[0], said.embedding[0], said.intensity[0], said.frame_weights[0])


def fit_folds(
    manifest: Where | Manifest,
    cache: Where,
    out: Where,
    *,
    folds: int = 10,
    scheme: str = "subject",
    seeds: int = 1,
    root: Where | None = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    **train: Any,
) -> Run:
    """STAGE TWO: train a head per fold and seed on cached features, test each on its fold, write and return the run.

    ``scheme``: subject, clipwise, official or split. ``train``: keys of ``train:`` in configs/heads.yaml, such as
    head="cefl", clips=7, frames=5, epochs=120. ``run.metrics["war"]`` has mean, std_ddof0, std_ddof1 and n; ``run.predictions()``
    is a table of every test video.

    >>> run = fit_folds("list.csv", "features.h5", "run", folds=2, clips=3, frames=2, epochs=2)
    >>> len(run.predictions())
    6
    """
    settings = load_train(None, **train)
    where = checked_device(device)
    protocol = Protocol(
        scheme, folds, tuple(range(settings.seed, settings.seed + seeds)), settings.select, settings.views
    )
    return train_heads(
        _manifest(manifest, root, labels), load_table(cache), recipe_of(settings, where), protocol, Path(out),
        device=where, command="ceflpipe.fit_folds", on_epoch=on_epoch,
    )  # fmt: skip


def predict(
    run: Where | Run, videos: Sequence[Where], *, encoder: Where | None = None, device: str = "auto"
) -> list[Prediction]:
    """Return what the folds of a run together say of the main face of each video, in order.

    ``encoder``: the weights that the run's features were made with; default: artifacts/weights. A video that cannot be
    judged has the reason in ``failure``. Raises CeflError when the encoder is another one.

    >>> [prediction] = predict("run", ["v0.mp4"], encoder="encoder.safetensors")
    >>> round(sum(prediction.probabilities.values()), 3)
    1.0
    """
    trained = run if isinstance(run, Run) else read_run(Path(run))
    weights = Path(encoder) if encoder else run_encoder_file(trained)
    return list(_predict(trained, [Path(video) for video in videos], weights=weights, device=device))


def _manifest(manifest: Where | Manifest, root: Where | None, labels: Sequence[str] | None) -> Manifest:
    if isinstance(manifest, Manifest):
        return manifest
    return read_manifest(Path(manifest), root=Path(root) if root else None, labels=labels)
