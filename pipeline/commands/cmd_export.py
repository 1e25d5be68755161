"""ceflpipe export: a trained run as ONNX files that need neither torch nor this package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...cache.errors import CeflError
from ..console import echo, echo_json, log, progress
from .options import OUT_FILE, PATH, announce, force_option, json_option, quiet_option

if TYPE_CHECKING:
    from ...cache.features import FeatureTable
    from ...stages.heads.run_io import Run


@click.command(
    name="export",
    epilog="Examples: ceflpipe export artifacts/runs/demo/faces/cefl --onnx; ceflpipe export faces --onnx --out faces.onnx",
    short_help="Write a trained run as ONNX files: crops to features, features to probabilities.",
)
@click.argument("run_path", metavar="RUN", type=PATH)
@click.option(
    "--onnx", "as_onnx", is_flag=True, help='As ONNX, the only format so far; needs pip install "ceflpipe[export]".'
)
@click.option(
    "--fold", default="", metavar="NAME", help="Only the models of this fold; default: the mean of all models."
)
@click.option("--encoder", help="Encoder by name, or a file; default: the one the run was trained with.")
@click.option(
    "--features", type=PATH,
    help="Feature cache on which the file is compared with torch; default: artifacts/features/NAME/ENCODER.h5, if it is there.",
)  # fmt: skip
@click.option("--out", type=OUT_FILE, help="Default: artifacts/onnx/NAME/ENCODER/RUN.onnx.")
@force_option
@json_option
@quiet_option
def command(
    run_path: Path, as_onnx: bool, fold: str, encoder: str | None, features: Path | None, out: Path | None, force: bool,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write two ONNX files that belong together, for ONNX Runtime in any language.

    \b
    NAME.encoder.onnx   crops uint8 RGB (N, S, S, 3) -> features float16 (N, D)
    NAME.onnx           features (batch, frames, D), length (batch) -> probabilities (batch, labels), clips: first and last
                        frame of each clip (batch, clips, 2), and intensity (batch, labels or 1, clips)

    Batch and frames are free; length is the number of frames of each video, which features are padded after. Faces are detected
    and aligned outside. Both are compared with torch, the second one on features of real videos; the largest difference is
    printed and kept in the files, which are not written if it is more than rounding. RUN is the folder of a run, or faces.
    """
    from ...cache.ownership import check_files
    from ...stages.heads.run_io import read_run
    from ...stages.predict.export import encoder_file_of, export_bytes, export_run
    from ..paths import encoder_file, export_file, find_run

    if not as_onnx:
        raise CeflError("export: give the format, --onnx")
    run = read_run(find_run(run_path))
    settings = run.extraction_settings
    path = encoder_file(encoder or settings.encoder)
    file = out or export_file(run.config["dataset"], Path(settings.encoder).stem, run.path.name)
    if file.suffix != ".onnx":
        raise CeflError(f"--out {file}: an ONNX file ends in .onnx; give it that ending")
    if not path.is_file():
        raise CeflError(f"{path}: no such encoder file; give the one the run was trained with by --encoder")
    cache = _find_cache(run, features)
    inputs = [path, *([cache] if cache else []), *(each for each in run.path.rglob("*") if each.is_file())]
    targets = [file, encoder_file_of(file)]
    announce(check_files(targets, "--out", inputs=inputs, force=force, required_bytes=export_bytes(run, path)))
    table = _read_table(run, cache)
    if table is None and not quiet:
        log("no feature cache of this run here, so the file is compared on random features; name one with --features")
    with progress("exporting", quiet=quiet) as on_progress:
        result = export_run(run, path, table, file, fold=fold, on_progress=on_progress)
    if as_json:
        echo_json({
            "head": str(result.head), "encoder": str(result.encoder), "max_difference": result.difference,
            "max_difference_own_precision": result.own_difference, "max_feature_difference": result.feature_difference,
            "checked_on": result.checked_on,
        })  # fmt: skip
        return
    precision = run.train_config.precision
    own = "" if precision == "fp32" else f" ({result.own_difference:.2g} to the run's own {precision})"
    echo(f"head: largest difference to torch {result.difference:.2g}{own}, of {result.checked_on}")
    echo(
        f"encoder: largest difference to stage one {result.feature_difference:.2g} of the largest feature, of test crops"
    )
    echo(str(result.encoder))
    echo(str(result.head))


def _find_cache(run: Run, features: Path | None) -> Path | None:
    """Return the feature cache to compare on: --features, else that of the run's data set and encoder if it is there."""
    from ..paths import features_file

    cache = features or features_file(run.config["dataset"], Path(run.extraction_settings.encoder).stem)
    return cache if features or cache.is_file() else None


def _read_table(run: Run, cache: Path | None) -> FeatureTable | None:
    """Return the features of a cache; raises CeflError if they are of another encoder than the run's."""
    from ...stages.heads.feature_bank import load_table

    if cache is None:
        return None
    table = load_table(cache)
    expected, actual = run.extraction_settings.encoder_sha256, table.settings.encoder_sha256
    if actual != expected:
        raise CeflError(
            f"{cache}: features of another encoder ({actual[:8]}…) than the run's ({expected[:8]}…); name the right cache with "
            "--features"
        )
    return table
