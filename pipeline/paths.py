"""Layout of artifacts/: one function per kind of file, relative to the working folder."""

from __future__ import annotations

import re
from pathlib import Path

from ..cache.errors import CeflError
from ..cache.ownership import holds_json

ARTIFACTS = Path("artifacts")
PRETRAINED_DIR = Path(__file__).resolve().parent.parent / "stages" / "encoder" / "pretrained"
"""Encoder files that come with the package."""
PRETRAINED_RUNS_DIR = Path(__file__).resolve().parent.parent / "stages" / "predict" / "pretrained"
"""Run folders that come with the package."""
ENCODER_SUFFIXES = (".safetensors", ".onnx")
DEFAULT_RUN = "faces"
"""The run of ``ceflpipe predict``, which comes with the package."""


def manifest_file(dataset: str) -> Path:
    return ARTIFACTS / "manifests" / f"{dataset}.csv"


def manifest_settings_file(manifest: Path) -> Path:
    """Settings a data set's manifest was created with, as JSON next to it."""
    return manifest.with_name(f"{manifest.name}.settings.json")


def owner_file(name: str) -> Path:
    """Text file that says which list, or other feature cache, of the user a name of the folders here belongs to."""
    return ARTIFACTS / "names" / f"{name}.txt"


def encoder_file(name: str | Path) -> Path:
    """Return the file of an encoder: a path (with a suffix or a folder) as it is, else the encoder of that name.

    A name is that of an encoder that comes with the package, else of one in artifacts/weights, NAME.safetensors or NAME.onnx.
    Raises CeflError if both are there.

    >>> [str(encoder_file(name)) for name in ("actors", "fer.safetensors", "vit.onnx", "my/encoder")]
    ['artifacts/weights/actors.safetensors', 'fer.safetensors', 'vit.onnx', 'my/encoder']
    """
    if not is_encoder_name(name):
        return Path(name)
    if pretrained := pretrained_file(name):
        return pretrained
    built = [path for path in (built_encoder_file(name, suffix) for suffix in ENCODER_SUFFIXES) if path.is_file()]
    if len(built) > 1:
        raise CeflError(
            f"{name}: there are two encoders of this name, {built[0]} and {built[1]}; remove one, or give the file"
        )
    return built[0] if built else built_encoder_file(name)


def pretrained_file(name: str | Path) -> Path | None:
    """Return the file of an encoder that comes with the package, None if no such encoder has this name."""
    path = PRETRAINED_DIR / f"{name}.safetensors"
    return path if is_encoder_name(name) and path.is_file() else None


def built_encoder_file(name: str | Path, suffix: str = ".safetensors") -> Path:
    """Return the file that ``ceflpipe encoder`` writes for a name: .safetensors of a ResNet-18, .onnx of other networks."""
    return ARTIFACTS / "weights" / f"{name}{suffix}"


def hidden_encoder_file(name: str | Path) -> Path | None:
    """Return the file in artifacts/weights that is not used since an encoder of its name comes with the package, or None."""
    if not pretrained_file(name):
        return None
    return next(
        (path for path in (built_encoder_file(name, suffix) for suffix in ENCODER_SUFFIXES) if path.is_file()), None
    )


def is_encoder_name(name: str | Path) -> bool:
    path = Path(name)
    return path.suffix not in ENCODER_SUFFIXES and path.parent == Path()


def features_folder(dataset: str) -> Path:
    return ARTIFACTS / "features" / dataset


def features_file(dataset: str, encoder: str) -> Path:
    return features_folder(dataset) / f"{encoder}.h5"


def crops_file(dataset: str, crop_size: int, align: str) -> Path:
    """Return the crop cache of a data set: that of all encoders with crops of this size and alignment."""
    return ARTIFACTS / "crops" / dataset / f"{crop_size}px{'' if align == 'landmarks' else f'-{align}'}.h5"


ADAPTED = "-adapted"
"""Ending of the name of an encoder that was fine-tuned on a data set's folds; before it, the name of the one it started from."""


END_TO_END = "-end-to-end"
"""Ending of the name of encoders that were trained together with heads."""


TIMING_FILE = "timing.json"
"""Seconds that the encoder of each fold was trained, in the folder of these."""


def fold_encoders_folder(dataset: str, encoder: str) -> Path:
    """Return the folder of the encoders of the folds of a data set; ``encoder``: their name, as faces-adapted."""
    return ARTIFACTS / "weights" / "folds" / dataset / encoder


def is_shard(cache: Path) -> bool:
    """Return whether a feature cache is that of one shard, by its name."""
    return re.search(r"\.shard-\d+-of-\d+$", cache.stem) is not None


def timing_file(features: Path) -> Path:
    """Duration of the last extraction that processed any video, as JSON next to its cache."""
    return features.with_name(f"{features.name}.timing.json")


def is_timing_file(path: Path) -> bool:
    """Return whether ``extract`` wrote a file as ``timing_file``; older versions did without ``encode_ms``."""
    return holds_json(path, lambda timing: set(timing) - {"encode_ms"} == {"frames", "seconds", "device", "workers"})


def encoders_file(dataset: str) -> Path:
    """Results of a comparison of encoders as CSV: a row per run, fold and seed."""
    return ARTIFACTS / "runs" / dataset / "encoders.csv"


def run_folder(results: str, run: str) -> Path:
    """Return the folder of a run; ``results``: DATASET/ENCODER, or the name of the results of another feature cache."""
    return ARTIFACTS / "runs" / results / run


def final_run_folder(run: Path) -> Path:
    """Return the folder of the final model of a cross-validated run, next to it.

    >>> str(final_run_folder(Path("artifacts/runs/demo/faces/cefl")))
    'artifacts/runs/demo/faces/cefl-final'
    """
    return run.with_name(f"{run.name}-final")


def tuned_run_folder(run: Path) -> Path:
    """Return the folder of the tuned form of a row of the ablation, whose run with the recipe of all rows is ``run``."""
    return run.with_name(f"{run.name}-tuned")


def export_file(dataset: str, encoder: str, run: str) -> Path:
    """Return the ONNX file of a run; that of its encoder is next to it."""
    return ARTIFACTS / "onnx" / dataset / encoder / f"{run}.onnx"


def pulled_run_folder(repository: str) -> Path:
    """Return the folder of a run of the hub; ``repository``: OWNER/NAME."""
    return ARTIFACTS / "pulled" / repository


def find_run(run: str | Path) -> Path:
    """Return a run's folder: that of a run that comes with the package by its name, or a path as it is.

    A folder of that name in the working folder is given as ./NAME.

    >>> find_run("faces").parent.name, str(find_run("runs/mine"))
    ('pretrained', 'runs/mine')
    """
    packaged = PRETRAINED_RUNS_DIR / run
    return packaged if Path(run).parent == Path() and packaged.is_dir() else Path(run)


def report_folder(dataset: str) -> Path:
    return ARTIFACTS / "reports" / dataset


def sweep_folder(results: str) -> Path:
    """Return the folder of a sweep; ``results``: see run_folder."""
    return ARTIFACTS / "sweeps" / results


def sweep_file(results: str) -> Path:
    """Results of a sweep as CSV: a row per run, fold and seed, written by `ceflpipe sweep` and read by the report."""
    return sweep_folder(results) / "sweep.csv"
