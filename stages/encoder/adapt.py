"""ResNet-18 fine-tuned on the training videos of each fold of a data set: one encoder per fold, which never saw its test.

A linear classifier is first fitted to the frozen features, then trained together with the last block, or with all layers
(Kumar et al., ICLR 2022, call this linear probing, then fine-tuning), at a low rate, with the running statistics of batch
normalization as they are. The mean of the features of a few frames of a video has the label of the video. Training stops when
the loss on an inner validation part of the fold's training videos no longer falls; the best epoch is kept, which may be the one
before the first: then the encoder is the one it started from.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ...cache.atomic import atomic_write, fold_stem, read_json, remove_stale_tmp, write_json
from ...cache.errors import CeflError, shorten_list
from ...cache.features import TRAINABLE_STATUSES, FrameStatus, VideoIndex
from ...cache.hdf5 import read_crops, read_features, read_settings
from ...cache.ownership import check_disk_space, check_files, claim_work_folder, remove_work_folder
from ..callbacks import ProgressCallback, ignore_progress
from ..device import autocast, resolve_device, resolve_precision
from ..fold_encoder import FoldEncoder
from ..manifest.manifest import Manifest
from ..state_dict import read_checkpoint
from .augment import CONTEXT_RATIO, random_affine_crop
from .encoder_config import AdaptConfig
from .synthetic import normalize_pixels
from .train_photographs import one_cycle
from .weights import (
    EncoderFile,
    is_encoder_file,
    load_encoder,
    read_encoder_metadata,
    write_encoder,
)

ADAPT_VERSION = 1
"""Raised when the same configuration trains another way: encoders and checkpoints of another version are not continued."""
TRUNK_FILE, TRUNK_RECORD, TIMING_FILE = "trunk.npy", "trunk.json", "timing.json"
ENCODER_BYTES = 45_000_000
PROBE_STEPS, PROBE_RATE, PROBE_DECAY = 300, 1e-2, 1e-3
"""Steps of Adam on all training videos at once, its learning rate, and its weight decay, of the first classifier."""
EVAL_BATCH = 128


@dataclass(frozen=True)
class AdaptFold:
    """A fold's videos, as indices into the manifest's entries. ``train`` and ``validation`` are those that the encoder sees; no
    subject of ``validation`` is in ``train``, none of the test in either."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class Adaptation:
    """What is fine-tuned on what: the ``base`` encoder file, and the crop cache of the manifest's videos."""

    manifest: Manifest
    manifest_sha256: str
    crops: Path
    base: Path
    folds: tuple[AdaptFold, ...]
    device: str = "auto"


@dataclass(frozen=True)
class VideoFrames:
    """Sampled frames of the videos that have any: crops (V, F, S, S, 3) uint8, labels (V,), source hashes; ``index``: the number
    in them of each entry of the manifest, -1 without frames."""

    crops: np.ndarray
    labels: np.ndarray
    sources: list[str]
    index: np.ndarray

    def of(self, entries: Sequence[int]) -> np.ndarray:
        """Return the videos of some entries."""
        rows = self.index[list(entries)]
        return rows[rows >= 0]


@dataclass
class FoldOutcome:
    """What came of a fold: epochs trained, the one that is kept (0: the base encoder), and validation losses and accuracies."""

    fold: str
    path: Path
    epochs: int = 0
    best_epoch: int = 0
    base_accuracy: float = 0.0
    best_accuracy: float = 0.0
    seconds: float = 0.0
    cached: bool = False
    losses: list[float] = field(default_factory=list)


def adapt_encoders(
    adaptation: Adaptation,
    config: AdaptConfig,
    folder: Path,
    *,
    force: bool = False,
    on_progress: ProgressCallback = ignore_progress,
) -> list[FoldOutcome]:
    """Write ``folder``/fold-NAME.safetensors of every fold, and return what came of each.

    Finished folds are not trained again. FOLDER.unfinished holds what the frozen layers give, and a checkpoint: the same call
    goes on after a kill and gives the same files as without it. ``on_progress`` counts videos, then epochs.

    Raises CeflError if the base is no ResNet-18, if a finished file is of other settings, videos or code (unless ``force``, which
    trains it again), if a fold has no video to train or validate on, or if the disk has no room.
    """
    base = read_encoder_metadata(adaptation.base)
    check_crops(adaptation.crops, base)
    table = read_features(adaptation.crops, features=False)
    keys = {fold.name: training_key(adaptation, config, fold, base, table.videos) for fold in adaptation.folds}
    files = {fold.name: folder / f"{fold_stem(fold.name)}.safetensors" for fold in adaptation.folds}
    check_files(list(files.values()), "--encoder", is_ours=is_encoder_file, force=None)
    pending = [fold for fold in adaptation.folds if force or not _is_finished(files[fold.name], keys[fold.name])]
    timing_path = folder / TIMING_FILE
    timing: dict[str, float] = read_json(timing_path, "durations") if timing_path.is_file() else {}
    outcomes = {
        fold.name: _read_outcome(fold.name, files[fold.name], timing)
        for fold in adaptation.folds
        if fold not in pending
    }
    if pending:
        network = load_encoder(adaptation.base)  # refuses what is no ResNet-18 before anything is read
        work = folder.with_name(f".{folder.name}.unfinished")
        existing = sum(file.stat().st_size for file in work.glob("*") if file.is_file())
        required = trunk_bytes(len(table.videos), config, read_settings(adaptation.crops).crop_size)
        check_disk_space(folder, "--encoder", required + (len(pending) + 8) * ENCODER_BYTES - existing)
        claim_work_folder(work)
        frames = read_frames(adaptation, config, table)
        for fold in pending:
            for part in ("train", "validation"):
                if not len(frames.of(getattr(fold, part))):
                    raise CeflError(
                        f"fold {fold.name}: no video to {part.replace('validation', 'validate')} on has a face"
                    )
        device = resolve_device(adaptation.device)
        precision = resolve_precision("auto", device)
        precision = "fp32" if precision == "fp16" else precision  # fp16 would need its gradients scaled
        source = _frame_source(network.to(device), base, frames, config, work, keys, precision, on_progress)
        completed = [len(outcomes) * config.epochs]
        for fold in pending:
            started = time.monotonic()
            trainer = FoldTrainer(source, frames, adaptation, config, fold, precision)
            checkpoint = work / f"{fold_stem(fold.name)}.pt"
            outcome = trainer.run(checkpoint, keys[fold.name], completed[0], len(keys) * config.epochs, on_progress)
            outcome.seconds = round(trainer.seconds_before + time.monotonic() - started, 1)
            outcome.path = files[fold.name]
            entries = adaptation.manifest.entries
            used, test = ([entries[i] for i in part] for part in ((*fold.train, *fold.validation), fold.test))
            record = FoldEncoder.of(
                fold.name, used, test, dict(zip(table.videos.id, table.videos.source_sha256, strict=True))
            )
            metadata = record.to_metadata() | _metadata(
                adaptation, config, base, outcome, len(fold.validation), keys[fold.name], precision
            )
            write_encoder(
                outcome.path, trainer.best_state(), f"{base.name}-adapted", base.normalization, metadata,
                crop_size=base.crop_size, classifier=trainer.best_classifier(), labels=adaptation.manifest.labels,
            )  # fmt: skip
            timing[fold.name] = outcome.seconds
            write_json(timing_path, timing)
            checkpoint.unlink(missing_ok=True)
            outcomes[fold.name] = outcome
            completed[0] += config.epochs
        remove_work_folder(work, lambda name: name in (TRUNK_FILE, TRUNK_RECORD) or name.endswith(".pt"))
    return [outcomes[fold.name] for fold in adaptation.folds]


def check_crops(crops: Path, base: EncoderFile) -> None:
    """Raise CeflError unless the crop cache has the size of the crops that an encoder was trained on."""
    size = read_settings(crops).crop_size
    if base.crop_size not in (None, size):
        raise CeflError(
            f"{crops}: crops of {size} px, but {base.name} was trained on {base.crop_size} px; make them with ceflpipe crops "
            f"--encoder {base.name}"
        )


def trunk_bytes(num_videos: int, config: AdaptConfig, crop_size: int) -> int:
    """Return the bytes that the output of the frozen layers takes on disk while encoders are trained."""
    side = -(-crop_size // 16)
    images = num_videos * config.frames_per_video * config.variants
    return images * 256 * side * side * 2 if config.layers == "last" else 0


def training_key(
    adaptation: Adaptation, config: AdaptConfig, fold: AdaptFold, base: EncoderFile, videos: VideoIndex
) -> dict[str, Any]:
    """Return all that decides the encoder of a fold; one whose file records the same is not trained again."""
    hashes = dict(zip(videos.id, videos.source_sha256, strict=True))
    faces = dict(zip(videos.id, videos.fingerprint, strict=True))
    entries = adaptation.manifest.entries

    def describe(part: Sequence[int]) -> list[list[str]]:
        rows = [
            (entries[i].id, entries[i].label, hashes.get(entries[i].id, ""), faces.get(entries[i].id, "")) for i in part
        ]
        return [list(row) for row in rows]

    return {
        "version": ADAPT_VERSION,
        "config": config.model_dump(exclude={"checkpoint_minutes"}),
        "base": base.sha256,
        "labels": list(adaptation.manifest.labels),
        "train": describe(fold.train),
        "validation": describe(fold.validation),
        "test": sorted(entries[i].id for i in fold.test),
    }


def read_frames(adaptation: Adaptation, config: AdaptConfig, table: Any) -> VideoFrames:
    """Read the sampled frames of every video of the manifest that has a face and is in one of the folds."""
    manifest, crops, labels, sources = adaptation.manifest, [], [], []
    used = {i for fold in adaptation.folds for i in (*fold.train, *fold.validation)}
    index = np.full(len(manifest.entries), -1)
    for i in sorted(used):
        entry = manifest.entries[i]
        number = table.index_of.get(entry.id)
        if number is None or table.videos.status[number] not in TRAINABLE_STATUSES:
            continue
        with_face = np.flatnonzero(table.frame_status[table.rows(entry.id)] != FrameStatus.MISSING)
        chosen = with_face[sample_evenly(len(with_face), config.frames_per_video)]
        index[i] = len(crops)
        crops.append(read_crops(adaptation.crops, table.videos, number, chosen))
        labels.append(manifest.labels.index(entry.label))
        sources.append(table.videos.source_sha256[number])
    if not crops:
        raise CeflError(
            f"{adaptation.crops}: no video of {manifest.name} has a face; see ceflpipe inspect {adaptation.crops}"
        )
    return VideoFrames(np.stack(crops), np.array(labels), sources, index)


def sample_evenly(length: int, count: int) -> np.ndarray:
    """Return ``count`` indices below ``length`` that are spread evenly, repeated if there are fewer.

    >>> sample_evenly(10, 4).tolist(), sample_evenly(2, 4).tolist()
    ([1, 3, 6, 8], [0, 0, 1, 1])
    """
    return ((2 * np.arange(count) + 1) * length) // (2 * count)


def augment_crop(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a crop (S, S, 3) that is moved, mirrored and lit at random; its border is continued by reflection."""
    size = len(crop)
    edge = (round(size * CONTEXT_RATIO) - size + 1) // 2
    return random_affine_crop(cv2.copyMakeBorder(crop, edge, edge, edge, edge, cv2.BORDER_REFLECT_101), size, rng)


class FrameSource:
    """Inputs of the layers that are trained, ``tail``: pixels if these are all layers."""

    def __init__(self, network: nn.Module, base: EncoderFile, frames: VideoFrames, config: AdaptConfig) -> None:
        self.network, self._frames, self._base, self._config = network, frames, base, config
        self.device = next(network.parameters()).device

    def tail(self, network: nn.Module) -> nn.Module:
        """Return the layers of a network that are trained."""
        return network

    def inputs(
        self, videos: np.ndarray, frames: np.ndarray, variants: np.ndarray, rng: np.random.Generator | None
    ) -> Tensor:
        """Return the inputs of the tail for frames of videos (N,) each; variant 0 is the crop as it is."""
        crops = self._frames.crops[videos, frames]
        if rng is not None:
            images = [
                augment_crop(crop, rng) if variant else crop for crop, variant in zip(crops, variants, strict=True)
            ]
            crops = np.stack(images)
        return normalize_pixels(np.ascontiguousarray(crops), self.device, self._base.mean, self._base.std)


class TrunkSource(FrameSource):
    """The output of the frozen layers, before layer4, for every sampled frame and variant, computed once for all folds.

    It lies in a file, float16 (V, F, A, 256, H, W): an interrupted computation goes on where it stopped.
    """

    def __init__(
        self,
        network: nn.Module,
        base: EncoderFile,
        frames: VideoFrames,
        config: AdaptConfig,
        work: Path,
        key: str,
        precision: str,
        on_progress: ProgressCallback,
    ) -> None:
        super().__init__(network, base, frames, config)
        self._trunk = self._compute(work, key, precision, on_progress)

    def tail(self, network: Any) -> nn.Module:
        """See FrameSource: the last two residual blocks, and the mean over the image."""
        return nn.Sequential(network.layer4, network.avgpool, nn.Flatten())

    def inputs(
        self, videos: np.ndarray, frames: np.ndarray, variants: np.ndarray, rng: np.random.Generator | None
    ) -> Tensor:
        """See FrameSource."""
        return torch.from_numpy(self._trunk[videos, frames, variants]).to(self.device).float()

    @torch.no_grad()
    def _compute(self, work: Path, key: str, precision: str, on_progress: ProgressCallback) -> np.ndarray:
        path, record = work / TRUNK_FILE, work / TRUNK_RECORD
        count, per_video = self._frames.crops.shape[:2]
        done = read_json(record, "the frozen layers' progress") if record.is_file() and path.is_file() else {}
        if done.get("key") != key:
            done = {"key": key, "videos": 0}
            record.unlink(missing_ok=True)
        network: Any = self.network
        trunk = nn.Sequential(
            network.conv1, network.bn1, network.relu, network.maxpool, network.layer1, network.layer2, network.layer3
        )
        side = -(-self._frames.crops.shape[2] // 16)
        shape = (count, per_video, self._config.variants, 256, side, side)
        output = np.lib.format.open_memmap(
            path, "r+" if done["videos"] else "w+", np.float16, None if done["videos"] else shape
        )
        saved = time.monotonic()
        for video in range(done["videos"], count):
            rng = np.random.default_rng([self._config.seed, 1, video])
            images = [
                augment_crop(crop, rng) if variant else crop
                for crop in self._frames.crops[video]
                for variant in range(self._config.variants)
            ]
            pixels = normalize_pixels(np.stack(images), self.device, self._base.mean, self._base.std)
            with autocast(self.device, precision):
                features = torch.cat([trunk(part) for part in pixels.split(EVAL_BATCH)])
            output[video] = features.to(torch.float16).cpu().numpy().reshape(shape[1:])
            on_progress(video + 1, count, "layers that stay as they are")
            if time.monotonic() - saved >= 60 * self._config.checkpoint_minutes or video + 1 == count:
                output.flush()
                write_json(record, {"key": key, "videos": video + 1})
                saved = time.monotonic()
        return output


def _frame_source(
    network: nn.Module,
    base: EncoderFile,
    frames: VideoFrames,
    config: AdaptConfig,
    work: Path,
    keys: dict[str, dict[str, Any]],
    precision: str,
    on_progress: ProgressCallback,
) -> FrameSource:
    if config.layers == "all":
        return FrameSource(network, base, frames, config)
    sampling = config.model_dump(include={"frames_per_video", "variants", "seed"})
    key = json.dumps([ADAPT_VERSION, sampling, base.sha256, frames.sources, precision, network_device(network)])
    return TrunkSource(network, base, frames, config, work, key, precision, on_progress)


def network_device(network: nn.Module) -> str:
    """Return cpu or cuda."""
    return next(network.parameters()).device.type


class FoldTrainer:
    """The tail of a network and a classifier, trained on a fold; a step depends only on its number, so it can be continued."""

    def __init__(
        self,
        source: FrameSource,
        frames: VideoFrames,
        adaptation: Adaptation,
        config: AdaptConfig,
        fold: AdaptFold,
        precision: str,
    ) -> None:
        self._source, self._frames, self._config, self._fold, self._precision = source, frames, config, fold, precision
        self._train, self._validation = frames.of(fold.train), frames.of(fold.validation)
        self._device = source.device
        self.network = load_encoder(adaptation.base).to(self._device)
        tail = source.tail(self.network)
        tail.requires_grad_(True)
        classifier = nn.Linear(512, len(adaptation.manifest.labels)).to(self._device)
        self._tail, self._classifier = tail, classifier
        parameters = [*tail.parameters(), *classifier.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self._best: dict[str, dict[str, Tensor]] = {}
        self._outcome = FoldOutcome(fold.name, Path())
        self.seconds_before = 0.0

    def run(
        self, checkpoint: Path, key: dict[str, Any], completed: int, total: int, on_progress: ProgressCallback
    ) -> FoldOutcome:
        """Train until the validation loss no longer falls; ``completed`` of ``total`` epochs of all folds are done before."""
        outcome, config = self._outcome, self._config
        text = json.dumps(key, sort_keys=True)
        if not self._resume(checkpoint, text):
            self._fit_probe()
            loss, outcome.base_accuracy = self._validate()
            outcome.losses.append(loss)
            self._keep_best(0, outcome.base_accuracy)
        outcome = self._outcome
        saved = started = time.monotonic()
        while outcome.epochs < config.epochs and outcome.epochs - outcome.best_epoch < config.stopping_epochs:
            epoch = outcome.epochs
            train_loss = self._train_epoch(epoch)
            loss, accuracy = self._validate()
            if not np.isfinite(loss) or not np.isfinite(train_loss):
                raise CeflError(
                    f"fold {self._fold.name}: loss is NaN or infinite in epoch {epoch + 1}; use a smaller --learning-rate"
                )
            outcome.epochs += 1
            if loss < min(outcome.losses):
                self._keep_best(outcome.epochs, accuracy)
            outcome.losses.append(loss)
            note = f"fold {self._fold.name}, epoch {outcome.epochs}, validation {accuracy:.0%}, loss {loss:.3f}"
            on_progress(completed + outcome.epochs, total, note)
            if time.monotonic() - saved >= 60 * config.checkpoint_minutes:
                self._save(checkpoint, text, self.seconds_before + time.monotonic() - started)
                saved = time.monotonic()
        on_progress(completed + config.epochs, total, f"fold {self._fold.name} is finished")
        return outcome

    def best_state(self) -> dict[str, Tensor]:
        """Return the state dict of the network of the best epoch."""
        self._tail.load_state_dict(self._best["tail"])
        return {key: value.detach().cpu() for key, value in self.network.state_dict().items()}

    def best_classifier(self) -> tuple[Tensor, Tensor]:
        """Return weight (C, 512) and bias (C,) of the best epoch's classifier."""
        return self._best["classifier"]["weight"].cpu(), self._best["classifier"]["bias"].cpu()

    def _fit_probe(self) -> None:
        """Fit the classifier to the features as they are: it starts from zero, so the result does not depend on chance."""
        features = self._video_features(self._train)
        labels = torch.from_numpy(self._frames.labels[self._train]).to(self._device)
        nn.init.zeros_(self._classifier.weight)
        nn.init.zeros_(self._classifier.bias)
        optimizer = torch.optim.Adam(self._classifier.parameters(), lr=PROBE_RATE, weight_decay=PROBE_DECAY)
        for _ in range(PROBE_STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(self._classifier(features), labels).backward()
            optimizer.step()

    def _train_epoch(self, epoch: int) -> float:
        """Train on every video once, in batches; return the mean loss."""
        config, rng = self._config, np.random.default_rng([self._config.seed, 2, epoch])
        order = rng.permutation(self._train)
        steps = max(1, len(order) // config.batch_size)
        per_step = min(config.frames_per_step, config.frames_per_video)
        losses = []
        for step, videos in enumerate(np.array_split(order, steps)):
            draws = rng.random((len(videos), config.frames_per_video)).argsort(axis=1)[:, :per_step]
            variants = rng.integers(0, config.variants, draws.size)
            x = self._source.inputs(np.repeat(videos, per_step), draws.reshape(-1), variants, rng)
            labels = torch.from_numpy(self._frames.labels[videos]).to(self._device)
            with autocast(self._device, self._precision):
                features = self._tail(x).float().view(len(videos), per_step, -1).mean(dim=1)
            logits = self._classifier(features)
            loss = nn.functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            rate = one_cycle(epoch * steps + step, config.epochs * steps, config.learning_rate)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([p for g in self._optimizer.param_groups for p in g["params"]], 5.0)
            self._optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Return loss and accuracy on the validation videos: of the mean features of all sampled frames, as they are."""
        logits = self._classifier(self._video_features(self._validation))
        labels = torch.from_numpy(self._frames.labels[self._validation]).to(self._device)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self._config.label_smoothing)
        return loss.item(), float((logits.argmax(dim=1) == labels).float().mean())

    @torch.no_grad()
    def _video_features(self, videos: np.ndarray) -> Tensor:
        """Return the mean features (N, 512) of the sampled frames of videos."""
        count = self._config.frames_per_video
        rows, frames = np.repeat(videos, count), np.tile(np.arange(count), len(videos))
        parts = []
        for first in range(0, len(rows), EVAL_BATCH):
            part = slice(first, first + EVAL_BATCH)
            x = self._source.inputs(rows[part], frames[part], np.zeros(len(rows[part]), np.int64), None)
            with autocast(self._device, self._precision):
                parts.append(self._tail(x).float())
        return torch.cat(parts).view(len(videos), count, -1).mean(dim=1)

    def _keep_best(self, epoch: int, accuracy: float) -> None:
        modules = {"tail": self._tail, "classifier": self._classifier}
        self._best = {name: {k: v.detach().clone() for k, v in m.state_dict().items()} for name, m in modules.items()}
        self._outcome.best_epoch, self._outcome.best_accuracy = epoch, accuracy

    def _save(self, path: Path, key: str, seconds: float) -> None:
        """Write all that the next epoch depends on."""
        outcome = {
            k: getattr(self._outcome, k) for k in ("epochs", "best_epoch", "base_accuracy", "best_accuracy", "losses")
        }
        values = {
            "key": key, "outcome": outcome, "best": self._best, "tail": self._tail.state_dict(), "seconds": seconds,
            "classifier": self._classifier.state_dict(), "optimizer": self._optimizer.state_dict(),
        }  # fmt: skip
        remove_stale_tmp(path)
        content = io.BytesIO()
        torch.save(values, content)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def _resume(self, path: Path, key: str) -> bool:
        """Read a checkpoint of the same training; return whether there is one."""
        values = read_checkpoint(path, str(path)) if path.is_file() else {}
        if values.get("key") != key:
            return False
        self._tail.load_state_dict(values["tail"])
        self._classifier.load_state_dict(values["classifier"])
        self._optimizer.load_state_dict(values["optimizer"])
        self._best, self.seconds_before = values["best"], float(values["seconds"])
        for name, value in values["outcome"].items():
            setattr(self._outcome, name, value)
        return True


def _metadata(
    adaptation: Adaptation,
    config: AdaptConfig,
    base: EncoderFile,
    outcome: FoldOutcome,
    num_validation: int,
    key: dict[str, Any],
    precision: str,
) -> dict[str, str]:
    values = {
        "source": "adapt",
        "dataset": adaptation.manifest.name,
        "manifest_sha256": adaptation.manifest_sha256,
        "base": base.name,
        "base_sha256": base.sha256,
        "license": base.metadata.get("license", "not stated") + f"; and the terms of {adaptation.manifest.name}",
        "key": json.dumps(key, sort_keys=True),
        "epochs_trained": str(outcome.epochs),
        "best_epoch": str(outcome.best_epoch),
        "base_validation_accuracy": f"{outcome.base_accuracy:.4f}",
        "validation_accuracy": f"{outcome.best_accuracy:.4f}",
        "validation_loss": json.dumps([round(loss, 4) for loss in outcome.losses]),
        "held_out_score": f"{outcome.best_accuracy:.3f} of {num_validation} validation videos of its fold, before "
        f"{outcome.base_accuracy:.3f}; they chose the epoch, so this is optimistic",
        "precision": precision,
        "torch": torch.__version__,
    }
    return values | {name: str(value) for name, value in config.model_dump(exclude={"checkpoint_minutes"}).items()}


def _is_finished(path: Path, key: dict[str, Any]) -> bool:
    """Return whether a file is the encoder of this key; raises CeflError if it is that of another one."""
    if not path.is_file():
        return False
    recorded = json.loads(read_encoder_metadata(path).metadata.get("key", "{}"))
    if recorded == key:
        return True
    changed = [name for name in key if recorded.get(name) != key[name]]
    before, now = recorded.get("config", {}), key["config"]
    options = [f"{name} {before.get(name)}, now {now[name]}" for name in now if before.get(name) != now[name]]
    raise CeflError(
        f"{path}: was made with another {shorten_list([name for name in changed if name != 'config'] + options)}; make all folds "
        "again with --force, or repeat the command that made it"
    )


def _read_outcome(fold: str, path: Path, timing: dict[str, float]) -> FoldOutcome:
    metadata = read_encoder_metadata(path).metadata
    return FoldOutcome(
        fold, path, int(metadata["epochs_trained"]), int(metadata["best_epoch"]), float(metadata["base_validation_accuracy"]),
        float(metadata["validation_accuracy"]), timing.get(fold, 0.0), True, json.loads(metadata["validation_loss"]),
    )  # fmt: skip
