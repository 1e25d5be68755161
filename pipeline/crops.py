"""Crop caches: the aligned faces of a data set, kept once for every encoder of one crop size that is to be trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..cache.errors import CeflError
from ..stages.callbacks import ProgressCallback, ignore_progress
from ..stages.encoder.weights import build_command
from ..stages.extract.extract import ExtractResult, Redo, extract_features
from ..stages.extract.extract_config import ExtractConfig, ResolvedConfig, resolve_crop_size
from ..stages.extract.plan import ExtractPlan
from .console import log_extract_plan
from .dataset import DatasetSource
from .executor import num_cores, process_executor
from .paths import crops_file, encoder_file, is_shard


@dataclass(frozen=True)
class CropsOptions:
    """How crops are made; see extract_features. ``crop_size``: None for that of the encoder."""

    crop_size: int | None = None
    workers: int | None = None
    verify: bool = False
    retry_failed: bool = False
    redo: Redo = ""
    dry_run: bool = False


def crops_config(source: DatasetSource, crop_size: int | None = None) -> ExtractConfig:
    """Return the configuration that keeps the crops which the data set's encoder gets; raises CeflError without that encoder."""
    config = source.extract_config
    path = encoder_file(config.encoder)
    if not path.is_file():
        raise CeflError(f"{path}: no such encoder; build it with {build_command(path)}")
    config = config.model_copy(update={"encoder": path, "device": "cpu", "backend": "auto", "precision": "auto"})
    size = resolve_crop_size(config.model_copy(update={"crop_size": crop_size} if crop_size else {}))
    return config.model_copy(update={"keep": "crops", "crop_size": size, "detector_device": "auto"})


def crops_path(source: DatasetSource, config: ExtractConfig) -> Path:
    """Return the crop cache of a configuration of ``crops_config``."""
    align = "landmarks" if config.input == "crops" else config.align
    return crops_file(source.name, config.crop_size or 0, align)


def make_crops(
    source: DatasetSource,
    options: CropsOptions,
    *,
    on_plan: Callable[[ExtractPlan, ResolvedConfig], None] | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> ExtractResult:
    """Bring the crop cache of a data set up to date: as stage one, with the faces of its feature caches where these still hold.

    Raises CeflError as extract_features.
    """
    manifest, config = source.manifest(), crops_config(source, options.crop_size)
    if not options.dry_run:
        source.claim_names()
    count = options.workers or num_cores()
    return extract_features(
        manifest, config, crops_path(source, config), executor=process_executor(count), workers=count,
        verify=options.verify, retry_failed=options.retry_failed, redo=options.redo, dry_run=options.dry_run,
        detections=[cache for cache in source.feature_caches if not is_shard(cache)], on_plan=on_plan, on_progress=on_progress,
    )  # fmt: skip


def print_crops_plan(plan: ExtractPlan, resolved: ResolvedConfig) -> None:
    """Print what of a crop cache is there, and what is to be made."""
    log_extract_plan(plan, f"crops of {resolved.settings.crop_size} px", "make")
