"""Configuration files: YAML read into frozen pydantic models; an unknown key is an error that lists the known ones."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ..cache.errors import CeflError, did_you_mean
from ..stages.demo.demo_config import DemoConfig
from ..stages.encoder.encoder_config import AdaptConfig, PhotographEncoderConfig, SyntheticEncoderConfig
from ..stages.encoder.onnx_card import NetworkConfig
from ..stages.extract.extract_config import ExtractConfig
from ..stages.heads.train_config import CVConfig, TrainConfig
from ..stages.manifest.dataset_report import ExpectedCounts
from ..stages.strict_model import StrictModel

CONFIG_DIR = Path("configs")
"""Configuration files in the working folder; those it does not have are taken from the package."""
PACKAGED_CONFIG_DIR = Path(__file__).resolve().parent.parent / "configs"
PARAMS_FILE = "params.yaml"
"""Defaults of stage two, in the working folder or the package. This is DVC's default name and may hold parameters of other
programs, so keys other than ``train`` and ``cv`` are ignored."""
DATASET_ALIASES = {"bu3dfe": "bu4dfe"}
"""The CEFLNet paper calls BU-4DFE, the dynamic data set, BU-3DFE."""
_NOT_DATASETS = {"pipeline", "encoder"}

Model = TypeVar("Model", bound=BaseModel)


class DatasetCard(StrictModel, frozen=True):
    """Facts about a data set, a sentence or two each.

    ``unverified``: values of the file with only one source, or from memory; printed when the data set is checked.
    """

    description: str = ""
    reference: str = ""
    access: str = ""
    protocol_notes: str = ""
    unverified: tuple[str, ...] = ()


class DatasetConfig(StrictModel, frozen=True):
    """configs/NAME.yaml: where a data set is, and how it is read, extracted and scored.

    ``options`` are those of its loader; ``train`` and ``cv`` override params.yaml. ``allow_external_paths``: paths and links
    may lead out of ``root``, as those of git-annex and of DVC caches do.
    """

    title: str
    loader: str
    root: str
    allow_external_paths: bool = False
    labels: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    extract: ExtractConfig = ExtractConfig()
    demo: DemoConfig | None = None
    train: dict[str, Any] = Field(default_factory=dict)
    cv: dict[str, Any] = Field(default_factory=dict)
    card: DatasetCard = DatasetCard()
    expected: ExpectedCounts = ExpectedCounts()


class SweepConfig(StrictModel, frozen=True):
    """Grid of figure 8, used by a sweep without lists of its own."""

    head: str = "cefl"
    num_clips: tuple[int, ...] = (1, 3, 5, 7, 9)
    frames_per_clip: tuple[int, ...] = (2, 5, 10, 15)


class PipelineConfig(StrictModel, frozen=True):
    """configs/pipeline.yaml: the default data set, and the lists that dvc.yaml runs over."""

    dataset: str = "demo"
    datasets: tuple[str, ...] = ("demo",)
    encoders: tuple[str, ...] = ("faces",)
    built: tuple[str, ...] = ()
    heads: tuple[str, ...] = ("cefl", "mean")
    sweep: SweepConfig = SweepConfig()


class EncoderFileConfig(StrictModel, frozen=True):
    """An encoder that is built from a file or folder: ``files:`` of configs/encoder.yaml, and what DVC compares."""

    source: Literal["file", "photographs"] = "file"
    path: str
    normalization: Literal["imagenet", "unit"] | None = None
    crop_size: int | None = Field(default=None, ge=32, le=1024)


class EncoderConfig(StrictModel, frozen=True):
    """configs/encoder.yaml: a key for each source that `ceflpipe encoder` can build without a file, and names of others."""

    actors: SyntheticEncoderConfig = SyntheticEncoderConfig()
    photographs: PhotographEncoderConfig = PhotographEncoderConfig()
    adapt: AdaptConfig = AdaptConfig()
    imagenet: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, EncoderFileConfig] = Field(default_factory=dict)
    networks: dict[str, NetworkConfig] = Field(default_factory=dict)


@dataclass(frozen=True)
class TrainOptions:
    """Values of the training options: ``train`` and ``cv`` override those sections of the configuration."""

    features: Path | None = None
    encoder: str | None = None
    device: str = "auto"
    train: dict[str, Any] = field(default_factory=dict)
    cv: dict[str, Any] = field(default_factory=dict)
    memory: int | None = None
    """Bytes that training may take; None: half of what is free."""


def load_pipeline_config() -> PipelineConfig:
    return _load_model("pipeline", PipelineConfig)


def load_encoder_config() -> EncoderConfig:
    return _load_model("encoder", EncoderConfig)


def load_dataset_config(name: str) -> DatasetConfig:
    """Return the configuration of a data set; raises CeflError with the configured names if it is not one of them."""
    names = dataset_names()
    if name not in names:
        raise CeflError(
            f"--dataset {name}: not configured{did_you_mean(name, names)}; "
            f"for your own videos write {CONFIG_DIR}/{name}.yaml, or use --manifest videos.csv"
        )
    return _load_model(name, DatasetConfig)


def dataset_names() -> list[str]:
    """Return every data set that has a file in configs/."""
    folders = [folder for folder in (PACKAGED_CONFIG_DIR, CONFIG_DIR) if folder.is_dir()]
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")} - _NOT_DATASETS)


def load_train_config(dataset: DatasetConfig | None, **overrides: Any) -> TrainConfig:
    """Return ``train:`` of params.yaml, overridden by the data set's, overridden by values that are not None."""
    return _load_section("train", TrainConfig, dataset.train if dataset else {}, overrides)


def load_cv_config(dataset: DatasetConfig | None, **overrides: Any) -> CVConfig:
    """Return ``cv:`` of params.yaml, overridden by the data set's, overridden by values that are not None."""
    return _load_section("cv", CVConfig, dataset.cv if dataset else {}, overrides)


def load_loader_options(options_class: type[Any], content: dict[str, Any], source: str) -> Any:
    """Return a loader's options (a frozen dataclass); raises CeflError for an unknown key or an impossible value."""
    known = [field.name for field in fields(options_class)]
    for key in content:
        if key not in known:
            raise CeflError(f"{source}: unknown key options.{key}{did_you_mean(str(key), known, 'options.')}")
    try:
        return TypeAdapter(options_class).validate_python(content)
    except ValidationError as error:
        lines = [_format_error(StrictModel, problem, source, "options.") for problem in error.errors()]
        raise CeflError("\n".join(lines)) from None


def _load_section(name: str, model: type[Model], dataset: dict[str, Any], overrides: dict[str, Any]) -> Model:
    """Merge a section of params.yaml with the layers above it; an error names the layer it comes from."""
    path = _find_file(Path(PARAMS_FILE), PACKAGED_CONFIG_DIR.parent / PARAMS_FILE)
    values = (_read_yaml(path).get(name) or {}) if path else {}
    layers = [(str(path), values), (f"{name}: of the data set", dataset)]
    layers.append(("arguments", {key: value for key, value in overrides.items() if value is not None}))
    merged: dict[str, Any] = {}
    for source, layer in layers:
        if not isinstance(layer, dict):
            raise CeflError(f"{source}: expected {name}: with 'key: value' lines below it, found {layer!r}")
        merged |= layer
        validate(model, merged, source, prefix=f"{name}.")
    return model.model_validate(merged)


def _load_model(name: str, model: type[Model]) -> Model:
    path = _find_file(CONFIG_DIR / f"{name}.yaml", PACKAGED_CONFIG_DIR / f"{name}.yaml")
    return validate(model, _read_yaml(path), str(path)) if path else model()


def _find_file(*candidates: Path) -> Path | None:
    return next((path for path in candidates if path.is_file()), None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CeflError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise CeflError(f"{path}: expected 'key: value' lines, found {type(content).__name__}")
    return content or {}


def validate(model: type[Model], content: dict[str, Any], source: str, prefix: str = "") -> Model:
    """Return ``content`` as a model; raises CeflError with a line per problem that names ``source`` and the key."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_format_error(model, problem, source, prefix) for problem in error.errors()]
        raise CeflError("\n".join(lines)) from None


def _format_error(model: type[BaseModel], problem: Any, source: str, prefix: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = prefix + ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = sorted(_known_keys(model, path[:-1]))
        return f"{source}: unknown key {key}{did_you_mean(path[-1], known, key.removesuffix(path[-1]))}"
    value = "" if problem["type"] == "missing" else f", found {problem['input']!r}"
    return f"{source}: {key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{value}"


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
