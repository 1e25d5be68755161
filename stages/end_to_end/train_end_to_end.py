"""Encoder and head trained jointly from aligned crops, as in the paper (section 4) and the released code.

The head, the sampled clips, the loss, Adam and its schedule are those of stage two, for the same seed and fold the very same
numbers; what differs is that gradients reach ResNet-18, whose batch normalization is in training mode. Axes: b videos of a
batch, u distinct frames of a video, n clips, k frames of a clip, N distinct frames of all videos of a batch.
"""

from __future__ import annotations

import io
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ...cache.atomic import atomic_write, fold_stem, read_json, remove_stale_tmp, write_json
from ...cache.code_hash import code_hash
from ...cache.errors import CeflError
from ...cache.features import FeatureTable
from ...cache.hdf5 import read_crops, read_features
from ...cache.lock import writer_lock
from ...cache.ownership import (
    RUN_FOLDER,
    check_disk_space,
    check_files,
    check_folder,
    claim_work_folder,
    remove_work_folder,
)
from ..callbacks import ProgressCallback, ignore_progress
from ..device import autocast
from ..encoder.adapt import ENCODER_BYTES, TIMING_FILE, check_crops
from ..encoder.synthetic import normalize_pixels
from ..encoder.weights import EncoderFile, is_encoder_file, load_encoder, read_encoder_metadata, write_encoder
from ..fold_encoder import FoldEncoder
from ..heads.calibration import calibration_metrics
from ..heads.ceflnet import gather_clips, run_head
from ..heads.chunks import FinishedChunks, Tables
from ..heads.clip_sampling import ClipIndices, check_sampling
from ..heads.cross_validation import HISTORY_COLUMNS
from ..heads.data_checks import check_training_data
from ..heads.evaluate import evaluate
from ..heads.feature_bank import FeatureBank, VideoDataset, join_features, sources_sha256
from ..heads.folds import Fold, make_folds
from ..heads.layers import BatchedDropout, HeadOutput, init_weights
from ..heads.losses import loss_per_video
from ..heads.metrics import compute_metrics, uar, war
from ..heads.predictions import predictions_frame
from ..heads.registry import build_head, resolve_head
from ..heads.run_card import NO_TEXTS, CardTexts, run_card
from ..heads.run_io import Run, read_run, run_config, verify_run, write_run
from ..heads.run_size import estimate_run_size, parameters_per_model
from ..heads.train import ModelSpec, get_lr, sample_epoch
from ..heads.train_config import TUNED_SETTINGS, CVConfig, TrainConfig
from ..heads.tuning import no_tuning
from ..manifest.manifest import Manifest
from ..state_dict import read_checkpoint

WIDTH = 512
EVAL_CROPS = 256
"""Crops that are encoded at a time in testing."""
CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True)
class EndToEnd:
    """What is trained: the ``base`` encoder file to start from, the crop cache of the manifest's videos, the folder of the
    trained ``encoders``, and the arithmetic of the encoder: fp32, bf16, or fp16 with scaled gradients."""

    manifest: Manifest
    crops: Path
    base: Path
    encoders: Path
    device: torch.device
    precision: str = "fp32"
    command: str = ""
    checkpoint_minutes: float = 3.0


def train_end_to_end(
    task: EndToEnd,
    config: TrainConfig,
    cv: CVConfig,
    out: Path,
    *,
    card_texts: CardTexts = NO_TEXTS,
    force: bool = False,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Train an encoder and a head per fold and seed, test each on its fold, and write the run folder and the encoder files.

    The run has the format of cross_validate, so the report shows it next to runs on cached features. A finished run of the same
    settings, crops and code is returned as it is; after a kill the same call goes on after the last checkpoint, with the same
    result. ``on_progress`` counts epochs of all models. Raises CeflError as cross_validate, and if the base is no ResNet-18 or
    has other crops.
    """
    check_folder(out, "--out", RUN_FOLDER, force=force)
    config = config.model_copy(update={"head": resolve_head(config.head)})
    check_sampling(config.num_clips, config.frames_per_clip)
    base, manifest = read_encoder_metadata(task.base), task.manifest
    check_crops(task.crops, base)
    load_encoder(task.base)  # refuses what is no ResNet-18
    table = read_features(task.crops, features=False)
    folds = make_folds(manifest.entries, cv.fold_scheme, cv.folds, cv.seed)
    dataset = join_features(manifest, table, torch.device("cpu"))
    notes = check_training_data(manifest.entries, table.videos, folds, cv)
    pairs = [(seed, fold) for seed in cv.seeds for fold in folds]
    models = [ModelSpec(seed, fold.name, dataset.indices_of(fold.train, fold.name)) for seed, fold in pairs]
    files = [task.encoders / f"{fold_stem(model.fold)}{_seed_suffix(model, cv)}.safetensors" for model in models]
    check_files(files, "--out", is_ours=is_encoder_file, force=None)
    description = run_config(manifest, config, cv) | {"end_to_end": _describe(task, base, table)}
    if run := _finished_run(out, description, files):
        return run
    size = estimate_run_size(manifest, config, cv, WIDTH, folds)
    check_disk_space(out.parent, "--out", size.finished + size.unfinished + (len(models) + 5) * ENCODER_BYTES)
    timing_path = task.encoders / TIMING_FILE
    timing: dict[str, float] = read_json(timing_path, "durations") if timing_path.is_file() else {}
    with writer_lock(Path(os.path.realpath(out))) as lock:
        chunks = FinishedChunks(out, description | {"device": task.device.type}, [1] * len(models), 1)
        with chunks.note_what_is_kept():
            tables = []
            for number, (model, (_, fold), file) in enumerate(zip(models, pairs, files, strict=True)):
                part = chunks.read(number) if file.is_file() else None
                if part is None:
                    trainer = JointTrainer(task, config, cv, dataset, table, model, fold, base, chunks.key)
                    part = trainer.run(out, number, len(models), on_progress)
                    trainer.write_encoder(file)
                    timing[file.stem] = round(trainer.seconds, 1)
                    write_json(timing_path, timing)
                    chunks.write(number, trainer.model.head, part)
                    trainer.remove_checkpoint()
                tables.append(part)
            predictions, history = (
                pd.concat([getattr(part, name) for part in tables], ignore_index=True)
                for name in ("predictions", "history")
            )
            metrics = compute_metrics(predictions, dataset.labels) | {
                "optimistic": cv.checkpoint == "best-test",
                "calibration": calibration_metrics(predictions, dataset.labels),
            }
            description |= _results(task, config, manifest, table, base, models, folds, files)
            description |= {"command": task.command, "notes": notes}
            lock.check()
            card = run_card(description, metrics, predictions, history, card_texts)
            run = write_run(
                out, description, metrics, predictions, history, chunks.weights(), card, no_tuning(), force=force
            )
            chunks.remove()
    return run


class JointModel(nn.Module):
    """ResNet-18 and one head as one network."""

    def __init__(
        self, network: nn.Module, head: nn.Module, base: EncoderFile, precision: str, head_precision: str
    ) -> None:
        super().__init__()
        self.network, self.head = network, head
        self._mean, self._std, self._precisions = base.mean, base.std, (precision, head_precision)

    def encode(self, crops: np.ndarray) -> Tensor:
        """Return the features (N, 512) float32 of crops (N, S, S, 3) uint8."""
        device = next(self.network.parameters()).device
        with autocast(device, self._precisions[0]):
            return self.network(normalize_pixels(crops, device, self._mean, self._std)).float()

    def forward(self, crops: np.ndarray, clips: ClipIndices, dropout: BatchedDropout) -> HeadOutput:
        """Return the head's output (1, b, …) for videos whose distinct frames follow one another in ``crops``.

        ``clips``: frames of the clips (b, n, k), as sampled. Encoding, then the head of stage two on a bank of just these frames.
        """
        features = self.encode(crops)
        counts = num_distinct(clips).to(features.device)
        inverse = clips.inverse.to(features.device)
        bank = FeatureBank(features, counts.cumsum(0) - counts, counts, torch.zeros_like(counts), 0)
        positions = torch.arange(clips.unique.shape[-1], device=features.device)
        unique = torch.minimum(positions.expand(len(counts), -1), counts[:, None] - 1)
        batch = ClipIndices(inverse[None], unique[None], inverse[None])
        videos = torch.arange(len(counts), device=features.device)[None]
        with autocast(features.device, self._precisions[1]):
            return run_head(self.head, gather_clips(self.head, bank, videos, batch), batch, dropout)


def num_distinct(clips: ClipIndices) -> Tensor:
    """Return the number of distinct frames (b,) of each video's clips; the others in ``clips.unique`` are padding."""
    return clips.inverse.flatten(1).amax(dim=1) + 1


class JointTrainer:
    """Trains and tests one model; an epoch depends only on its number, so training can be continued."""

    def __init__(
        self,
        task: EndToEnd,
        config: TrainConfig,
        cv: CVConfig,
        dataset: VideoDataset,
        table: FeatureTable,
        spec: ModelSpec,
        fold: Fold,
        base: EncoderFile,
        key: dict[str, Any],
    ) -> None:
        self._key = json.dumps([key, spec.seed, spec.fold], sort_keys=True)
        self._task, self._config, self._cv, self._dataset, self._table = task, config, cv, dataset, table
        self._spec, self._fold, self._base = spec, fold, base
        usable = np.argsort(dataset.index)[np.sum(dataset.index < 0) :]  # the entry of each video of the bank
        self._numbers = [table.index_of[dataset.entries[i].id] for i in usable]
        head = build_head(config.head, 1, WIDTH, len(dataset.labels))
        init_weights(head, [spec.generator("start")])
        network = load_encoder(task.base).requires_grad_(True)
        self.model = JointModel(network, head, base, task.precision, config.precision).to(task.device)
        self._loss = getattr(head, "loss", "cross-entropy") if config.loss == "auto" else config.loss
        self._optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._scaler = torch.amp.GradScaler(task.device.type, enabled=task.precision == "fp16")
        self._history: list[tuple[Any, ...]] = []
        self._best: dict[str, Tensor] = {}
        self._work, self.seconds = Path(), 0.0

    def run(self, out: Path, number: int, total: int, on_progress: ProgressCallback) -> Tables:
        """Train the ``number``-th of ``total`` models, or go on after its checkpoint beside ``out``; return its tables."""
        epochs = self._config.epochs
        self._work = out.with_name(f".{out.name}.checkpoint")
        claim_work_folder(self._work)
        self._resume()
        saved = started = time.monotonic()
        before = self.seconds
        for epoch in range(len(self._history), epochs):
            loss, accuracy = self.train_epoch(epoch)
            if not np.isfinite(loss):
                raise CeflError(
                    f"fold {self._spec.fold}: loss is NaN or infinite in epoch {epoch + 1}; use a smaller --learning-rate"
                )
            predictions = self.test()
            scores = war(predictions.correct), uar(predictions.label, predictions.correct, self._dataset.labels)
            best = max((row[6] for row in self._history), default=-1.0)
            rate = get_lr(epoch, self._config)
            self._history.append((self._spec.seed, self._spec.fold, epoch + 1, rate, loss, accuracy, *scores))
            if self._cv.checkpoint == "best-test" and scores[0] > best:
                self._best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            self.seconds = before + time.monotonic() - started
            on_progress(number * epochs + epoch + 1, total * epochs, f"fold {self._spec.fold}, loss {loss:.3f}")
            if time.monotonic() - saved >= 60 * self._task.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
        if self._best:
            self.model.load_state_dict(self._best)
        return Tables(self.test(self._cv.tta_views), pd.DataFrame(self._history, columns=list(HISTORY_COLUMNS)))

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        """Train on every video of the fold once; return mean loss and accuracy."""
        config, device, spec = self._config, self._task.device, self._spec
        self.model.train()
        videos, counts, clips = sample_epoch(self._dataset.bank, [spec], config, epoch, (True,))
        dropout = BatchedDropout([spec.generator(f"dropout {epoch}", device)], config.batch_size)
        for group in self._optimizer.param_groups:
            group["lr"] = get_lr(epoch, config)
        total_loss, num_correct = 0.0, 0
        steps = [(videos[0, s, : counts[0, s]], clips.step(s, int(counts[0, s]))) for s in range(videos.shape[1])]
        for (batch, _), (clip, crops) in zip(steps, self._read_ahead(steps), strict=True):
            labels = self._dataset.bank.label[batch].to(device)[None]
            output = self.model(crops, clip, dropout)
            losses = loss_per_video(self._loss, output.logits, labels)
            self._optimizer.zero_grad(set_to_none=True)
            self._scaler.scale(losses.mean()).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()
            total_loss += losses.detach().sum().item()
            num_correct += int((output.logits.argmax(dim=-1) == labels).sum())
        return total_loss / len(spec.train), num_correct / len(spec.train)

    @torch.no_grad()
    def test(self, views: int = 1) -> pd.DataFrame:
        """Return the predictions of the fold's test videos: all frames are encoded, then the head tested as stage two does."""
        self.model.eval()
        videos = self._dataset.indices_of(self._fold.test, self._fold.name)
        crops = (read_crops(self._task.crops, self._table.videos, self._numbers[v]) for v in videos.tolist())
        features = [
            torch.cat([self.model.encode(video[i : i + EVAL_CROPS]) for i in range(0, len(video), EVAL_CROPS)])
            for video in crops
        ]
        length, label = (
            values[videos].to(self._task.device) for values in (self._dataset.bank.length, self._dataset.bank.label)
        )
        features = torch.cat(features) if features else torch.zeros(0, WIDTH, device=self._task.device)
        bank = FeatureBank(features, length.cumsum(0) - length, length, label, self._dataset.bank.num_classes)
        index = np.full(len(self._dataset.entries), -1)
        with_features = [i for i in self._fold.test if self._dataset.index[i] >= 0]
        index[with_features] = np.arange(len(with_features))
        local = torch.arange(len(videos), device=self._task.device)[None]
        outputs = evaluate(self.model.head, bank, local, self._config, views)
        dataset = replace(self._dataset, index=index, bank=replace(bank, length=length.cpu()))
        return predictions_frame(dataset, self._spec, 0, self._fold.test, outputs, self._config, views)

    def _read_ahead(self, steps: Sequence[tuple[Tensor, ClipIndices]]) -> Iterator[tuple[ClipIndices, np.ndarray]]:
        """Yield the clips (b, …) and crops (N, S, S, 3) of each step; the next ones are read while a step is computed."""

        def read(step: tuple[Tensor, ClipIndices]) -> tuple[ClipIndices, np.ndarray]:
            videos, clips = (
                step[0],
                ClipIndices(*(part[0] for part in (step[1].frames, step[1].unique, step[1].inverse))),
            )
            crops = [
                read_crops(self._task.crops, self._table.videos, self._numbers[video], frames[:count].numpy())
                for video, frames, count in zip(
                    videos.tolist(), clips.unique, num_distinct(clips).tolist(), strict=True
                )
            ]
            return clips, np.concatenate(crops)

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(read, steps[0])
            for number in range(len(steps)):
                ready = future.result()
                if number + 1 < len(steps):
                    future = pool.submit(read, steps[number + 1])
                yield ready

    def write_encoder(self, path: Path) -> None:
        """Write the trained encoder as a file that says what it was trained on."""
        state = {key: value.detach().cpu() for key, value in self.model.network.state_dict().items()}
        entries, hashes = (
            self._dataset.entries,
            dict(zip(self._table.videos.id, self._table.videos.source_sha256, strict=True)),
        )
        train, test = ([entries[i] for i in part] for part in (self._fold.train, self._fold.test))
        metadata = FoldEncoder.of(self._fold.name, train, test, hashes).to_metadata() | {
            "source": "end-to-end", "base": self._base.name, "base_sha256": self._base.sha256,
            "dataset": self._task.manifest.name, "seed": str(self._spec.seed), "precision": self._task.precision,
            "torch": torch.__version__, "license": self._base.metadata.get("license", "not stated"),
        }  # fmt: skip
        name = f"{self._base.name}-end-to-end"
        write_encoder(path, state, name, self._base.normalization, metadata, crop_size=self._base.crop_size)

    def _save(self) -> None:
        """Write all that the next epoch depends on."""
        values = {
            "key": self._key, "model": self.model.state_dict(), "optimizer": self._optimizer.state_dict(), "best": self._best,
            "scaler": self._scaler.state_dict(), "history": [list(row) for row in self._history], "seconds": self.seconds,
        }  # fmt: skip
        path = self._work / CHECKPOINT_FILE
        remove_stale_tmp(path)
        content = io.BytesIO()
        torch.save(values, content)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def _resume(self) -> None:
        """Read the checkpoint of this model, if there is one."""
        path = self._work / CHECKPOINT_FILE
        values = read_checkpoint(path, str(path)) if path.is_file() else {}
        if values.get("key") != self._key:
            return
        self.model.load_state_dict(values["model"])
        self._optimizer.load_state_dict(values["optimizer"])
        self._scaler.load_state_dict(values["scaler"])
        self._best, self.seconds = values["best"], float(values["seconds"])
        self._history = [tuple(row) for row in values["history"]]

    def remove_checkpoint(self) -> None:
        remove_work_folder(self._work, lambda name: name == CHECKPOINT_FILE)


def _seed_suffix(model: ModelSpec, cv: CVConfig) -> str:
    return f"-seed-{model.seed}" if cv.num_seeds > 1 else ""


def _describe(task: EndToEnd, base: EncoderFile, table: FeatureTable) -> dict[str, Any]:
    """Return what decides the result besides run_config."""
    crops = sha256("\n".join(sorted(table.videos.fingerprint)).encode()).hexdigest()
    return {
        "base": base.name, "base_sha256": base.sha256, "crops_sha256": crops, "precision": task.precision,
        "code": code_hash("stages/end_to_end/train_end_to_end.py"),
    }  # fmt: skip


def _finished_run(out: Path, description: dict[str, Any], files: Sequence[Path]) -> Run | None:
    """Return the run in a folder if it is complete and of this description, and its encoders are there."""
    if not (out / "run.json").is_file() or not verify_run(out) or not all(file.is_file() for file in files):
        return None
    run = read_run(out)
    return run if all(run.config.get(key) == value for key, value in description.items()) else None


def _results(
    task: EndToEnd,
    config: TrainConfig,
    manifest: Manifest,
    table: FeatureTable,
    base: EncoderFile,
    models: Sequence[ModelSpec],
    folds: Sequence[Fold],
    files: Sequence[Path],
) -> dict[str, Any]:
    """Return what run.json says of a finished run besides its settings, with the keys that cross_validate writes."""
    hashes = [read_encoder_metadata(file).sha256 for file in files]
    settings = replace(
        table.settings, encoder=f"{base.name}-end-to-end", encoder_sha256=sha256("\n".join(hashes).encode()).hexdigest(),
        normalization=base.normalization, precision=task.precision, backend="torch", width=WIDTH,
    )  # fmt: skip
    trained, tested = ({int(i) for fold in folds for i in getattr(fold, part)} for part in ("train", "test"))
    head = parameters_per_model(config.head, WIDTH, len(manifest.labels))
    tuned = config.model_dump(include=set(TUNED_SETTINGS))
    return {
        "dim": WIDTH,
        "models": [{"seed": model.seed, "fold": model.fold} | tuned for model in models],
        "folds": {fold.name: [manifest.entries[i].id for i in fold.test] for fold in folds},
        "train_only": [manifest.entries[i].id for i in sorted(trained - tested)],
        "features": {
            "sha256": settings.encoder_sha256,
            "sources_sha256": sources_sha256((manifest.entries[i].id for i in trained | tested), table.videos),
            "settings": asdict(settings),
            "folds": {file.stem: {"encoder_sha256": digest} for file, digest in zip(files, hashes, strict=True)},
        },
        "init_sha256": "",
        "parameters_per_model": head,
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
        | {"python": platform.python_version()},
    }
