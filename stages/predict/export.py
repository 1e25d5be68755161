"""Export of a trained run to two ONNX files that belong together: crops to features, and features to probabilities."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.atomic import sha256_of
from ...cache.errors import CeflError
from ...cache.features import TRAINABLE_STATUSES, FeatureTable
from ...cache.ownership import write_owned
from ..callbacks import ProgressCallback, ignore_progress
from ..encoder.onnx_export import CROPS, FEATURES, add_metadata, export_encoder, export_module
from ..encoder.weights import is_onnx, read_encoder_metadata
from ..extract.extract_config import ExtractConfig, build_encoder
from ..heads.calibration import calibrate
from ..heads.clip_sampling import clip_frame_spans, map_start, map_view, sample_clips_test, slot_to_frame, view_starts
from ..heads.evaluate import evaluate
from ..heads.feature_bank import FeatureBank
from ..heads.layers import BatchedDropout
from ..heads.run_io import SUMS_FILE, Run
from ..heads.train_config import LongVideos
from ..onnx_session import build_session
from ..slots import NUM_SLOTS
from .predict import extract_config_of

MAX_DIFFERENCE, MAX_FEATURE_DIFFERENCE = 1e-3, 2e-2
"""Above these the files are not written: of a probability or intensity (0..1), and of a feature relative to the largest one."""
NUM_VIDEOS, NUM_CROPS = 32, 8
"""Videos of the feature cache, and crops, on which a file is compared with torch."""
STEPS = 5
PROBABILITIES, INTENSITY, CLIPS, LENGTH = "probabilities", "intensity", "clips", "length"


class FeatureClassifier(nn.Module):
    """A run's own test procedure on features: clips sampled from 105 slots, the probabilities of each model (the
    mean over views) at the run's temperature, and their mean over models.

    forward takes features (B, T, D) of B videos, padded to T frames, and the number of frames (B,) of each; it returns
    probabilities (B, C), the clips' first and last frames (B, n, 2) and, of heads that have it, the intensity (B, maps, n).
    """

    def __init__(self, head: nn.Module, num_models: int, run: Run) -> None:
        super().__init__()
        config, views = run.train_config, run.cv.tta_views
        self.head, self.num_models, self.temperature = head, num_models, run.temperature
        self.long_videos: LongVideos = config.long_videos
        self.mapped = map_view(views, config.test_view)
        whole = torch.tensor([NUM_SLOTS])  # whose frames are the slots themselves
        n, k = config.num_clips, config.frames_per_clip
        starts = view_starts(n, views, config.test_view)
        slots = torch.cat([sample_clips_test(whole, n, k, "first", start) for start in starts])
        self.register_buffer("slots", slots)  # (views, n, k)
        self.register_buffer("spans", clip_frame_spans(whole, n, "first", map_start(config, views)))  # (1, n, 2)

    def _frames(self, slots: Tensor, length: Tensor) -> Tensor:
        """Return the frames (B, n, ...) that fill slots (n, ...) in videos of a length (B,)."""
        expanded = slots[None].expand(length.shape[0], -1, -1)
        return slot_to_frame(expanded, length[:, None, None].expand_as(expanded), self.long_videos)

    def forward(self, features: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        count, frames, dim = features.shape
        rows = features.float().reshape(count * frames, dim)
        first = torch.arange(count, device=length.device) * frames
        probabilities, intensity = torch.zeros(()), None
        slots = self.get_buffer("slots")
        for view in range(slots.shape[0]):
            index = first[:, None, None] + self._frames(slots[view], length)
            clips = rows.index_select(0, index.reshape(-1)).reshape(count, *slots.shape[1:], dim)
            output = self.head(clips[None].expand(self.num_models, -1, -1, -1, -1), BatchedDropout(None))
            probabilities = probabilities + torch.softmax(output.logits.float(), dim=-1) / slots.shape[0]
            if view == self.mapped and output.intensity is not None:
                intensity = output.intensity.float().mean(dim=0)
        probabilities = calibrate(probabilities, self.temperature).mean(dim=0)
        spans = self._frames(self.get_buffer("spans")[0], length)
        return (probabilities, spans) if intensity is None else (probabilities, spans, intensity)


@dataclass(frozen=True)
class ExportResult:
    """The two files, and how far they are from torch: the largest differences, and on what they were measured."""

    head: Path
    encoder: Path
    difference: float
    feature_difference: float
    own_difference: float
    """Of the head in the precision of the run itself, which may be bf16."""
    checked_on: str


def encoder_file_of(head: Path) -> Path:
    """Return the file of the encoder that belongs to that of a head.

    >>> str(encoder_file_of(Path("cefl.onnx")))
    'cefl.encoder.onnx'
    """
    return head.with_name(f"{head.stem}.encoder{head.suffix}")


def export_bytes(run: Run, encoder: Path) -> int:
    """Return about how large both files will be."""
    return len(run.config["models"]) * run.config["parameters_per_model"] * 4 + 4 * encoder.stat().st_size + (1 << 20)


def export_run(
    run: Run,
    encoder: Path,
    table: FeatureTable | None,
    out: Path,
    *,
    fold: str = "",
    on_progress: ProgressCallback = ignore_progress,
) -> ExportResult:
    """Write ``out`` (features to probabilities) and the encoder's file next to it (crops to features); compare both with torch.

    ``encoder``: the file that the run was trained with. ``table``: features of real videos by this encoder, on which the head is
    compared; None: random ones. ``fold``: only the models of this fold; '': the mean of all. Both files compute in fp32.
    Raises CeflError, and writes nothing, if they differ from torch by more than rounding, or there is no such fold.
    """
    if "folds" in run.config["features"]:
        raise CeflError(
            f"{run.path}: each of its folds has an encoder of its own, and an ONNX file has one; export a run on the "
            "features of one encoder"
        )
    extract_config_of(run, encoder, "cpu")  # raises for another encoder
    models = _models_of(run, fold)
    on_progress(0, STEPS, "encoder")
    encoder_network = export_encoder(encoder, run.extraction_settings.crop_size)
    on_progress(1, STEPS, "head")
    head = _select(run, models)
    module = FeatureClassifier(head, len(models), run)
    outputs = [PROBABILITIES, CLIPS, *([INTENSITY] if _has_intensity(run, module) else [])]
    inputs = {
        FEATURES: torch.zeros(2, 40, run.config["dim"], dtype=torch.float16),
        LENGTH: torch.tensor([40, 30]),
    }
    head_network = export_module(module, inputs, {FEATURES: {0: "batch", 1: "frames"}, LENGTH: {0: "batch"}}, outputs)
    on_progress(2, STEPS, "comparing the head")
    bank, checked_on = _check_bank(run, table)
    difference, own_difference = _compare_head(run, head, head_network, bank, len(models))
    on_progress(3, STEPS, "comparing the encoder")
    feature_difference = _compare_encoder(run, encoder, encoder_network)
    for name, value, limit in (
        ("head", difference, MAX_DIFFERENCE), ("encoder", feature_difference, MAX_FEATURE_DIFFERENCE),
    ):  # fmt: skip
        if not value <= limit:
            raise CeflError(
                f"export: the ONNX file of the {name} differs from torch by {value:.2g}, more than rounding ({limit:g}), so "
                'nothing was written; try another version: pip install -U "ceflpipe[export]" onnxruntime'
            )
    on_progress(4, STEPS, "writing")
    facts = _facts(run, encoder) | {"models": [run.config["models"][index] for index in models]}
    encoder_path = encoder_file_of(out)
    encoder_network = add_metadata(
        encoder_network, facts | {"part": "encoder", "max_difference": feature_difference, "head_file": out.name}
    )
    head_network = add_metadata(
        head_network,
        facts
        | {
            "part": "head", "max_difference": difference, "max_difference_own_precision": own_difference,
            "checked_on": checked_on, "encoder_file": encoder_path.name,
            "encoder_file_sha256": hashlib.sha256(encoder_network).hexdigest(),
        },
    )  # fmt: skip
    for path, content in ((encoder_path, encoder_network), (out, head_network)):
        with write_owned(path) as temporary:
            temporary.write_bytes(content)
    on_progress(STEPS, STEPS, "done")
    return ExportResult(out, encoder_path, difference, feature_difference, own_difference, checked_on)


def _models_of(run: Run, fold: str) -> list[int]:
    """Return the models of a fold, all without one."""
    names = [str(model["fold"]) for model in run.config["models"]]
    if fold and fold not in names:
        raise CeflError(
            f"--fold {fold}: the run has the folds {', '.join(dict.fromkeys(names))}; give one, or none for all"
        )
    return [index for index, name in enumerate(names) if name == (fold or name)]


def _select(run: Run, models: list[int]) -> nn.Module:
    """Return the batched head of some models of a run."""
    head = run.head().requires_grad_(False)
    for module in head.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter[models], requires_grad=False))
    return head


def _has_intensity(run: Run, module: FeatureClassifier) -> bool:
    return len(module(torch.zeros(1, 2, run.config["dim"]), torch.tensor([2]))) == 3


def _facts(run: Run, encoder: Path) -> dict[str, Any]:
    """Return what both files say of themselves."""
    settings, file = run.extraction_settings, read_encoder_metadata(encoder)
    score = {key: value for key, value in run.metrics.items() if key in ("war", "uar", "expected_war", "expected_uar")}
    return {
        "labels": list(run.labels), "dataset": run.config["dataset"], "head": run.train_config.head, "final": run.is_final,
        "run_sha256": sha256_of(run.path / SUMS_FILE), "code": run.config["code"], "scores": score,
        "temperature": run.temperature, "calibration": run.calibration,
        "folds": run.describe_cv(), "encoder": settings.encoder, "encoder_sha256": settings.encoder_sha256,
        "crop_size": settings.crop_size, "template": file.template, "align": settings.align,
        "num_clips": run.train_config.num_clips, "long_videos": run.train_config.long_videos,
        "not_for": "Visible expressions only; not for decisions on people, see the model card of the run.",
    }  # fmt: skip


def _check_bank(run: Run, table: FeatureTable | None) -> tuple[FeatureBank, str]:
    """Return the features on which a head is compared with torch, and what they are, in words."""
    if table is None:
        generator = np.random.default_rng(0)
        parts = [generator.random((length, run.config["dim"])) for length in (1, 12, 60, 105, 150, 230)]
        what = f"random features of {len(parts)} lengths"
    else:
        usable = [
            i for i, status in enumerate(table.videos.status) if status in TRAINABLE_STATUSES and table.videos.length[i]
        ]
        if not usable:
            raise CeflError("--features: no video of this cache has features; run ceflpipe inspect to see why")
        chosen = [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, NUM_VIDEOS).round().astype(int))]
        parts = [table[table.videos.id[i]] for i in chosen]
        what = f"features of {len(parts)} videos of the cache"
    lengths = torch.tensor([len(part) for part in parts])
    bank = FeatureBank(
        torch.from_numpy(np.concatenate(parts).astype(np.float16)), lengths.cumsum(0) - lengths, lengths,
        torch.zeros(len(parts), dtype=torch.long), len(run.labels),
    )  # fmt: skip
    return bank, what


def _compare_head(run: Run, head: nn.Module, network: bytes, bank: FeatureBank, num_models: int) -> tuple[float, float]:
    """Return the largest difference of a probability or intensity to torch in fp32, and in the precision of the run."""
    session = build_session(network, 0)
    names = [output.name for output in session.get_outputs()]
    count, longest = len(bank.length), int(bank.length.max())
    padded = np.zeros((count, longest, bank.features.shape[1]), np.float16)
    for row, (start, length) in enumerate(zip(bank.start.tolist(), bank.length.tolist(), strict=True)):
        padded[row, :length] = bank.features[start : start + length].numpy()
    results: dict[str, Any] = dict(
        zip(names, session.run(None, {FEATURES: padded, LENGTH: bank.length.numpy()}), strict=True)
    )
    videos = torch.arange(count).expand(num_models, count)
    differences = []
    for precision in ("fp32", run.train_config.precision):
        config = run.train_config.model_copy(update={"precision": precision})
        outputs = evaluate(head, bank, videos, config, run.cv.tta_views)
        pairs = [(calibrate(outputs.probabilities, run.temperature), PROBABILITIES)]
        pairs += [] if outputs.intensity is None else [(outputs.intensity, INTENSITY)]
        differences.append(max(float(np.abs(x.mean(dim=0).numpy() - results[name]).max()) for x, name in pairs))
    return differences[0], differences[1]


def _compare_encoder(run: Run, encoder: Path, network: bytes) -> float:
    """Return the largest difference of a feature to the encoder of stage one in fp32, relative to the largest feature."""
    size = run.extraction_settings.crop_size
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (NUM_CROPS, 8, 8, 3), np.uint8)  # spots, as large as parts of a face
    crops = coarse.repeat(-(-size // 8), 1).repeat(-(-size // 8), 2)[:, :size, :size]
    config = ExtractConfig(
        encoder=encoder, crop_size=size, precision="auto" if is_onnx(encoder) else "fp32", device="cpu",
        backend="onnxruntime" if is_onnx(encoder) else "torch",
    )  # fmt: skip
    own = build_encoder(config, run.extraction_settings.encoder_sha256)(crops)
    session = build_session(network, 0)
    length = session.get_inputs()[0].shape[0]
    step = length if isinstance(length, int) else len(crops)
    filled = np.concatenate([crops, np.zeros((-len(crops) % step, *crops.shape[1:]), np.uint8)])
    batches = [session.run(None, {CROPS: filled[i : i + step]})[0] for i in range(0, len(filled), step)]
    exported = np.concatenate([np.asarray(batch) for batch in batches])[: len(crops)]
    own, exported = own.astype(np.float64), exported.astype(np.float64)
    return float(np.abs(own - exported).max() / max(np.abs(own).max(), 1e-9))
