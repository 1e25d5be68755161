"""ResNet-18 trained on labelled face photographs, alone or together with rendered faces."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.atomic import atomic_write, remove_stale_tmp, sha256_of
from ...cache.errors import CeflError
from ...cache.ownership import check_disk_space, claim_work_folder, remove_work_folder
from ..callbacks import Executor, ProgressCallback, ignore_progress
from ..demo.action_units import ACTION_UNITS, EXPRESSIONS
from ..device import autocast, resolve_device, resolve_precision
from ..state_dict import read_checkpoint
from .augment import augment_photograph, random_affine_crop
from .encoder_config import PhotographEncoderConfig, SyntheticEncoderConfig
from .photograph_crops import (
    CROPS_FILE,
    RECORD_FILE,
    FaceFinder,
    PhotographCrops,
    crop_bytes,
    crops_bytes,
    prepare_crops,
)
from .photographs import Photographs, read_photographs
from .synthetic import normalize_pixels, render_faces
from .weights import (
    compress,
    decompress,
    load_classifier,
    load_encoder,
    read_crop_size,
    read_encoder_metadata,
    resnet18_backbone,
    write_encoder,
)

TRAINING_VERSION = 1
"""Raised when the same configuration trains another way; a checkpoint of another version is not continued."""
TRAINING_BYTES = 9 * 45_000_000
"""Of a checkpoint (the network, its average, two moments of the optimizer), its successor, and the encoder file."""
CHECKPOINT_FILE, ACTORS_FILE = "checkpoint.pt", "actors.npz"
WARMUP_FRACTION = 0.15
"""Part of the steps in which the learning rate rises."""
EMA_DECAY = 0.998
"""Of the moving average of the weights, which is what is scored and written."""
UNIT_LOSS_WEIGHT = 4.0
"""Weight of the action units (mean squared error) in the loss of rendered faces."""
FULL_INTENSITY = 0.6
"""Intensity of an actor from which annotators would agree on the expression: the label's share of the target grows up to it."""
EVAL_BATCH = 128


@dataclass(frozen=True)
class PhotographTraining:
    """What to train on: ``source``: a folder or CSV; ``init``: an encoder file to start from; ``license``: terms of the data."""

    source: Path
    find_face: FaceFinder
    init: Path | None = None
    license: str = ""
    command: str = ""
    device: str = "auto"


@dataclass(frozen=True)
class Scores:
    """``confusion`` int (C, C): rows true labels, columns predicted ones; ``accuracy`` and ``uar`` in 0..1, uar over the labels
    that occur."""

    confusion: np.ndarray

    @property
    def count(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / max(1, self.count))

    @property
    def recall(self) -> np.ndarray:
        """Recall (C,) of each label, NaN where it does not occur."""
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / self.confusion.sum(axis=1)

    @property
    def uar(self) -> float:
        return float(np.nanmean(self.recall))

    def describe(self, subject: str) -> str:
        return f"{self.accuracy:.3f} of {self.count:,} {subject}, UAR {self.uar:.3f}"


def train_photograph_encoder(
    training: PhotographTraining,
    out: Path,
    name: str,
    config: PhotographEncoderConfig,
    *,
    executor: Executor = map,
    on_progress: ProgressCallback = ignore_progress,
) -> dict[str, str]:
    """Train ResNet-18 and a linear classifier on photographs, score them on the validation split, write the encoder file.

    Targets are the distributions of the annotators' votes (cross-entropy); rare labels are drawn more often (label_balance);
    AdamW with one cycle of the learning rate; every batch is augmented differently. With ``joint`` actors each batch also has
    rendered faces, whose intensities become a distribution over the same labels, and whose action units are a second target.
    The folder OUT.training holds the crops and a checkpoint, and is removed at the end: the same call goes on after a kill and
    gives the same file as without it. Returns the metadata. ``on_progress`` counts photographs, then steps.

    Raises CeflError for photographs that cannot be read, if a checkpoint is of other settings or photographs, and if the disk
    has no room for all this.
    """
    photographs = read_photographs(training.source)
    folder = out.with_name(f"{out.name}.training")
    images = config.actor_images if config.joint == "actors" else 0
    required = (
        crops_bytes(photographs, config.crop_size, folder) + images * crop_bytes(config.crop_size) + TRAINING_BYTES
    )
    existing = [file for name in (CHECKPOINT_FILE, ACTORS_FILE) if (file := folder / name).is_file()]
    check_disk_space(out.parent, "--out", required - sum(file.stat().st_size for file in existing))
    claim_work_folder(folder)
    crops = prepare_crops(
        photographs, config.crop_size, folder, training.find_face, executor=executor, on_progress=on_progress
    )
    on_progress(0, 0, crops.describe())
    splits, targets = photographs.splits[crops.rows], photographs.targets[crops.rows]
    train_rows, val_rows = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val")
    actors = (
        _load_actors(folder, config, photographs.labels, executor, on_progress) if config.joint == "actors" else None
    )
    trainer = Trainer(config, photographs.labels, training.init, training.device, actors)
    steps_per_epoch = max(1, len(train_rows) // config.batch_size)
    total, checkpoint = config.epochs * steps_per_epoch, folder / CHECKPOINT_FILE
    key = _training_key(config, training, photographs, crops)
    begin = trainer.resume(checkpoint, key) if checkpoint.is_file() else 0
    batches = _batches(crops.crops, targets, train_rows, steps_per_epoch, begin, total, config)
    saved = time.monotonic()
    for step, (pixels, target) in enumerate(batches, start=begin):
        loss = trainer.step(step, total, pixels, target)
        epoch = step // steps_per_epoch + 1
        on_progress(step + 1, total, f"epoch {epoch} of {config.epochs}, loss {loss:.3f}")
        if step + 1 < total and time.monotonic() - saved >= 60 * config.checkpoint_minutes:
            trainer.save(checkpoint, key, step + 1)
            saved = time.monotonic()
    trainer.save(checkpoint, key, total)
    network, classifier = trainer.averaged()
    scores = score_crops(network, classifier, crops.crops, targets, val_rows, crops.size, trainer.precision)
    metadata = _metadata(training, photographs, crops, config, scores, trainer, actors)
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    if config.storage != "fp32":
        metadata["storage_cosine"] = _storage_cosine(state, config.storage, crops, val_rows)
    linear = (classifier.weight.detach().cpu(), classifier.bias.detach().cpu())
    write_encoder(
        out, state, name, "imagenet", metadata, crop_size=crops.size, storage=config.storage, classifier=linear,
        labels=photographs.labels,
    )  # fmt: skip
    remove_work_folder(folder, lambda name: name in (CHECKPOINT_FILE, ACTORS_FILE, CROPS_FILE, RECORD_FILE))
    return metadata


class Trainer:
    """Network, classifier, moving average and optimizer; a step depends only on its number, so training can be continued."""

    def __init__(
        self,
        config: PhotographEncoderConfig,
        labels: Sequence[str],
        init: Path | None,
        device: str,
        actors: ActorFaces | None,
    ) -> None:
        self._config, self._actors = config, actors
        self.device = resolve_device(device)
        precision = resolve_precision("auto", self.device)
        self.precision = "bf16" if precision == "bf16" else "fp32"  # fp16 would need its gradients scaled
        torch.manual_seed(config.seed)
        network = resnet18_backbone()
        if init is not None:
            network.load_state_dict(load_encoder(init).state_dict(), strict=False)
        heads = [nn.Linear(512, size) for size in (len(labels), *([len(ACTION_UNITS)] if actors else []))]
        self._model = nn.ModuleList([network, *heads]).to(self.device)
        self._model[0].to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch declares memory_format only without a device
        self._average = {key: value.detach().clone() for key, value in self._model.state_dict().items()}
        matrices = [p for p in self._model.parameters() if p.ndim > 1]
        vectors = [p for p in self._model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)

    def step(self, step: int, total: int, pixels: np.ndarray, target: np.ndarray) -> float:
        """Train on one batch of augmented crops uint8 (B, S, S, 3) and distributions (B, C); return the loss."""
        self._model.train()
        actors = self._actors.batch(step, len(pixels), self._config) if self._actors else None
        count = len(pixels)
        network, classifier = self._model[0], self._model[1]
        both = np.concatenate([pixels, actors.crops]) if actors else pixels
        with autocast(self.device, self.precision):
            features = network(normalize_pixels(both, self.device))
            logits = classifier(features)
        loss = _cross_entropy(logits[:count], target, self.device)
        if actors:
            with autocast(self.device, self.precision):
                predicted = self._model[2](features[count:])
            unit_loss = nn.functional.mse_loss(predicted.float(), torch.from_numpy(actors.units).to(self.device))
            actor_loss = _cross_entropy(logits[count:], actors.targets, self.device)
            loss = loss + len(actors.crops) / count * (actor_loss + UNIT_LOSS_WEIGHT * unit_loss)
        for group in self._optimizer.param_groups:
            group["lr"] = one_cycle(step, total, self._config.learning_rate)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 5.0)
        self._optimizer.step()
        # an average over the first steps would remember the random weights
        weight = max(1 - EMA_DECAY, 1 / (step + 1))
        with torch.no_grad():
            for key, value in self._model.state_dict().items():
                if value.is_floating_point():
                    self._average[key].lerp_(value, weight)
                else:
                    self._average[key].copy_(value)
        return loss.item()

    def averaged(self) -> tuple[nn.Module, nn.Linear]:
        """Return the network and classifier with the averaged weights, in evaluation mode."""
        self._model.load_state_dict(self._average)
        self._model.eval()
        network, classifier = self._model[0], self._model[1]
        if not isinstance(classifier, nn.Linear):
            raise TypeError("the second module is the classifier")
        return network, classifier

    def save(self, path: Path, key: str, step: int) -> None:
        """Write all that the next step depends on."""
        values = {
            "key": key, "step": step, "model": self._model.state_dict(), "average": self._average,
            "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        remove_stale_tmp(path)
        content = io.BytesIO()  # writing to a file itself, torch tells a full disk from other faults in no way
        torch.save(values, content)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def resume(self, path: Path, key: str) -> int:
        """Read a checkpoint and return the number of steps done; raises CeflError if it is of other settings or photographs."""
        values = read_checkpoint(path, str(path))
        if values["key"] != key:
            raise CeflError(
                f"{path}: of an interrupted training with other options, photographs or code; repeat that command to continue, "
                "or delete this file to begin again"
            )
        self._model.load_state_dict(values["model"])
        for name, value in values["average"].items():
            self._average[name].copy_(value)
        self._optimizer.load_state_dict(values["optimizer"])
        return int(values["step"])


def one_cycle(step: int, total: int, highest: float) -> float:
    """Return the learning rate of a step: from a 25th up to ``highest``, then down to almost 0, both by half a cosine.

    >>> [round(one_cycle(step, 100, 1.0), 3) for step in (0, 15, 99)]
    [0.04, 1.0, 0.0]
    """
    warmup = max(1, round(WARMUP_FRACTION * total))
    if step < warmup:
        return highest * (0.04 + 0.96 * (1 - math.cos(math.pi * step / warmup)) / 2)
    return highest * (1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2)


@torch.no_grad()
def score_crops(
    network: nn.Module,
    classifier: nn.Linear,
    crops: np.ndarray,
    targets: np.ndarray,
    rows: np.ndarray,
    size: int,
    precision: str = "fp32",
) -> Scores:
    """Return how often the most likely label is that of most annotators, on the clean crops of these ``rows``."""
    device = classifier.weight.device
    confusion = np.zeros((targets.shape[1],) * 2, np.int64)
    for start in range(0, len(rows), EVAL_BATCH):
        batch = rows[start : start + EVAL_BATCH]
        with autocast(device, precision):
            logits = classifier(network(normalize_pixels(center(crops[batch], size), device)))
        np.add.at(confusion, (targets[batch].argmax(axis=1), logits.float().argmax(dim=1).cpu().numpy()), 1)
    return Scores(confusion)


def score_encoder(
    path: Path,
    source: Path,
    split: str,
    folder: Path,
    find_face: FaceFinder,
    *,
    device: str = "auto",
    executor: Executor = map,
    on_progress: ProgressCallback = ignore_progress,
) -> tuple[Scores, str]:
    """Return the scores of an encoder file's classifier on a split of photographs, and the share of faces found in words.

    Photographs whose label the classifier does not know are left out. ``folder`` keeps the crops. Raises CeflError if the encoder
    has no classifier, or the photographs have no such split.
    """
    encoder = read_encoder_metadata(path)
    weight, bias = load_classifier(path)
    photographs = read_photographs(source)
    known = [label in encoder.labels for label in photographs.labels]
    rows = np.flatnonzero((photographs.splits == split) & np.array(known)[photographs.targets.argmax(axis=1)])
    if not len(rows):
        raise CeflError(
            f"{source}: no photographs of the split {split}; found {', '.join(np.unique(photographs.splits))}"
        )
    targets = np.zeros((len(rows), len(encoder.labels)), np.float32)
    for column, label in enumerate(photographs.labels):
        if label in encoder.labels:
            targets[:, encoder.labels.index(label)] = photographs.targets[rows, column]
    chosen = replace(
        photographs, paths=[photographs.paths[row] for row in rows], splits=photographs.splits[rows], targets=targets
    )
    check_disk_space(folder, "TMPDIR", crops_bytes(chosen, read_crop_size(path), folder))
    crops = prepare_crops(chosen, read_crop_size(path), folder, find_face, executor=executor, on_progress=on_progress)
    torch_device = resolve_device(device)
    network = load_encoder(path).to(torch_device)
    classifier = nn.Linear(*weight.shape[::-1]).to(torch_device)
    classifier.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    scores = score_crops(network, classifier, crops.crops, targets[crops.rows], np.arange(len(crops.rows)), crops.size)
    return scores, crops.describe()


def center(crops: np.ndarray, size: int) -> np.ndarray:
    """Return the middle (N, size, size, 3) of crops with a margin: what stage one gives the encoder."""
    edge = round((crops.shape[1] - size) / 2)
    return np.ascontiguousarray(crops[:, edge : edge + size, edge : edge + size])


def draw_order(targets: np.ndarray, rows: np.ndarray, balance: float, seed: int, epoch: int) -> np.ndarray:
    """Return as many of ``rows`` as there are, in the order of an epoch.

    Each is drawn once if ``balance`` is 0; otherwise a row of a label that is f times as frequent is drawn f^-balance times as
    often, by evenly spaced draws, so that none is missed whose turn is due.
    """
    rng = np.random.default_rng([seed, 1, epoch])
    counts = np.bincount(targets[rows].argmax(axis=1), minlength=targets.shape[1])
    weights = counts[targets[rows].argmax(axis=1)].astype(np.float64) ** -balance
    shuffled = rng.permutation(len(rows))
    edges = np.cumsum(weights[shuffled]) / weights.sum()
    draws = np.minimum(np.searchsorted(edges, (np.arange(len(rows)) + rng.random()) / len(rows)), len(rows) - 1)
    return rows[shuffled[rng.permutation(draws)]]


@dataclass(frozen=True)
class ActorBatch:
    """``crops`` uint8 (B, S, S, 3), ``targets`` float32 (B, C), ``units`` float32 (B, 15)."""

    crops: np.ndarray
    targets: np.ndarray
    units: np.ndarray


@dataclass(frozen=True)
class ActorFaces:
    """Rendered faces: ``crops`` uint8 (N, W, W, 3) with a margin, ``targets`` (N, C), ``units`` (N, 15)."""

    crops: np.ndarray
    targets: np.ndarray
    units: np.ndarray

    def batch(self, step: int, num_photographs: int, config: PhotographEncoderConfig) -> ActorBatch:
        """Return the augmented faces of a step."""
        rng = np.random.default_rng([config.seed, 3, step])
        rows = rng.integers(0, len(self.crops), max(2, round(config.actor_share * num_photographs)))
        crops = np.stack([random_affine_crop(self.crops[row], config.crop_size, rng) for row in rows])
        return ActorBatch(crops, self.targets[rows], self.units[rows])


def actor_targets(intensity: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return distributions (N, C) over the labels from the intensities (N, 6) of the actors' expressions.

    An expression of FULL_INTENSITY or more is certain; the rest of a weaker one is neutral, or spread evenly over the labels if
    neutral is none of them. Expressions that are no label are left out.

    >>> actor_targets(np.array([[0, 0, 0, 0.3, 0, 0]]), ("happiness", "neutral")).tolist()
    [[0.5, 0.5]]
    """
    shares = np.clip(intensity / FULL_INTENSITY, 0, 1)
    shares = shares / np.maximum(1, shares.sum(axis=1, keepdims=True))
    targets = np.zeros((len(intensity), len(labels)), np.float32)
    for column, label in enumerate(EXPRESSIONS):
        if label in labels:
            targets[:, labels.index(label)] = shares[:, column]
    rest = 1 - targets.sum(axis=1)
    if "neutral" in labels:
        targets[:, labels.index("neutral")] += rest
    else:
        targets += rest[:, None] / len(labels)
    return targets


def _load_actors(
    folder: Path,
    config: PhotographEncoderConfig,
    labels: Sequence[str],
    executor: Executor,
    on_progress: ProgressCallback,
) -> ActorFaces:
    """Render the actors of joint training, or take those of an interrupted one."""
    settings = SyntheticEncoderConfig(num_images=config.actor_images, crop_size=config.crop_size, seed=config.seed)
    key, path = np.frombuffer(settings.model_dump_json().encode(), np.uint8), folder / ACTORS_FILE
    if path.is_file():
        with np.load(path) as saved:
            if np.array_equal(saved["key"], key):
                return ActorFaces(saved["crops"], actor_targets(saved["intensity"], labels), saved["units"])
    crops, values = render_faces(settings, executor, on_progress)
    intensity, units = values[:, : len(EXPRESSIONS)], values[:, len(EXPRESSIONS) :]
    remove_stale_tmp(path)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, key=key, crops=crops, intensity=intensity, units=units)
    return ActorFaces(crops, actor_targets(intensity, labels), units)


def _batches(
    crops: np.ndarray,
    targets: np.ndarray,
    rows: np.ndarray,
    steps_per_epoch: int,
    begin: int,
    total: int,
    config: PhotographEncoderConfig,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (augmented crops, targets) of the steps from ``begin``; the next batch is made while this one is trained on."""
    orders: dict[int, np.ndarray] = {}

    def make_batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, number = divmod(step, steps_per_epoch)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = draw_order(targets, rows, config.label_balance, config.seed, epoch)
        chosen = orders[epoch][number * config.batch_size : (number + 1) * config.batch_size]
        rng = np.random.default_rng([config.seed, 2, step])
        return np.stack([augment_photograph(crops[row], config.crop_size, rng) for row in chosen]), targets[chosen]

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(make_batch, begin) if begin < total else None
        for step in range(begin, total):
            if future is None:
                return
            batch = future.result()
            future = pool.submit(make_batch, step + 1) if step + 1 < total else None
            yield batch


def _cross_entropy(logits: Tensor, target: np.ndarray, device: torch.device) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), torch.from_numpy(target).to(device))


def _training_key(
    config: PhotographEncoderConfig, training: PhotographTraining, photographs: Photographs, crops: PhotographCrops
) -> str:
    """Return what decides the result, as text: a checkpoint of other settings or photographs is not continued."""
    data = [photographs.targets.tobytes(), photographs.splits.tobytes(), crops.rows.tobytes()]
    return json.dumps(
        {
            "version": TRAINING_VERSION,
            "config": config.model_dump(exclude={"checkpoint_minutes", "storage"}),
            "init": sha256_of(training.init) if training.init else "",
            "labels": photographs.labels,
            "data": [hashlib.sha256(part).hexdigest() for part in data],
        },
        sort_keys=True,
    )


def _metadata(
    training: PhotographTraining,
    photographs: Photographs,
    crops: PhotographCrops,
    config: PhotographEncoderConfig,
    scores: Scores,
    trainer: Trainer,
    actors: ActorFaces | None,
) -> dict[str, str]:
    recall = {
        label: round(float(value), 3)
        for label, value in zip(photographs.labels, scores.recall, strict=True)
        if value == value
    }
    counts = {split: int((photographs.splits[crops.rows] == split).sum()) for split in ("train", "val")}
    metadata = {
        "source": "photographs",
        "data": f"{photographs.layout}: {counts['train']:,} photographs to train, {counts['val']:,} to validate"
        + (f", {len(actors.crops):,} rendered faces" if actors else ""),
        "license": training.license or "not stated; the terms of the photographs apply",
        "left_out": "; ".join(photographs.notes),
        "faces": crops.describe(),
        "held_out_score": scores.describe("validation photographs (label of most annotators)"),
        "labels": ", ".join(photographs.labels),
        "recall": json.dumps(recall),
        "confusion": json.dumps(scores.confusion.tolist()),
        "init": training.init.name if training.init else "random weights",
        "precision": trainer.precision,
        "date": date.today().isoformat(),
        "command": training.command,
        "torch": torch.__version__,
        **{key: str(value) for key, value in config.model_dump(exclude={"checkpoint_minutes"}).items()},
    }
    if training.init:
        metadata["init_sha256"] = sha256_of(training.init)
    return {key: value for key, value in metadata.items() if value}


@torch.no_grad()
def _storage_cosine(state: dict[str, Tensor], storage: str, crops: PhotographCrops, rows: np.ndarray) -> str:
    """Return how close the features of the stored weights are to those of the 32-bit weights, on validation crops."""
    chosen = rows[:512]
    stored = {key: value.numpy() for key, value in compress(state, storage).items()}
    pixels = normalize_pixels(center(crops.crops[chosen], crops.size), torch.device("cpu"))
    features = []
    for tensors in (state, {key: torch.from_numpy(value) for key, value in decompress(stored).items()}):
        network = resnet18_backbone()
        network.load_state_dict(tensors)
        network.eval()
        features.append(torch.cat([network(part) for part in pixels.split(EVAL_BATCH)]))
    cosine = nn.functional.cosine_similarity(*features)
    return f"{storage}: lowest {cosine.min().item():.5f}, mean {cosine.mean().item():.5f} of {len(chosen)} crops"
