"""Configuration files: YAML read into frozen pydantic models; unknown keys are errors that list the known ones."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..cache.errors import CeflError, did_you_mean

HERE = Path("configs")
"""Configuration of the working folder; where it has no file of a name, the one that ships with ceflpipe is taken."""
SHIPPED = Path(__file__).resolve().parent.parent / "configs"


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ExtractConfig(Frozen):
    """Stage one; see stages/extract/extract_config.py for what each means."""

    faces: Literal["detect", "given"] = "detect"
    detector: str = "retinaface"
    side: int = Field(default=640, ge=64, le=4096)
    minimum_score: float = Field(default=0.5, gt=0, lt=1)
    align: Literal["landmarks", "box"] = "landmarks"
    size: int = Field(default=224, ge=32, le=1024)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    backend: Literal["torch", "openvino"] = "torch"


class ProtocolConfig(Frozen):
    """How a data set is scored: the fold scheme and the number of folds the field uses."""

    scheme: Literal["subject", "clipwise", "official", "split"] = "subject"
    folds: int = Field(default=10, ge=2)


class AboutConfig(Frozen):
    """What a person who has never seen the data set should know, a sentence or two each.

    ``unverified``: values of this file that rest on a single source or on memory; said when the data set is checked.
    """

    what: str = ""
    source: str = ""
    obtain: str = ""
    convention: str = ""
    unverified: tuple[str, ...] = ()


class ExpectedConfig(Frozen):
    """Published counts; see stages/manifest/dataset_report.py."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    videos: int | None = None
    subjects: int | None = None
    labels: dict[str, int] = Field(default_factory=dict)
    splits: dict[str, int] = Field(default_factory=dict)
    folds: dict[str, int] = Field(default_factory=dict)


class DemoConfig(Frozen):
    """The rendered actors; see stages/demo/make.py."""

    subjects: int = Field(default=24, ge=2, le=9999)
    size: int = Field(default=256, ge=96, le=1024)
    frames: tuple[Annotated[int, Field(ge=24)], Annotated[int, Field(ge=24)]] = (60, 100)
    fps: int = Field(default=25, ge=1, le=120)
    seed: int = 3456


class ActorsConfig(Frozen):
    """The encoder trained on rendered actors; see stages/encoder/synthetic.py."""

    pictures: int = Field(default=9600, ge=1)
    steps: int = Field(default=350, ge=1)
    batch: int = Field(default=64, ge=2)
    size: int = Field(default=112, ge=32)
    seed: int = 3456


class TrainConfig(Frozen):
    """Stage two; the values of the paper's Table 1 where it gives one, of the released code where only that does."""

    head: str = "cefl"
    loss: Literal["auto", "bce", "cross-entropy"] = "auto"
    clips: int = Field(default=7, ge=1)
    frames: int = Field(default=5, ge=1, le=15)
    longer: Literal["clip", "centre", "resample"] = "clip"
    epochs: int = Field(default=120, ge=0)
    warmup: int = Field(default=10, ge=0)
    cosine: int = Field(default=160, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    batch: int = Field(default=8, ge=1)
    class_weights: bool = False
    select: Literal["last", "best-test"] = "last"
    views: int = Field(default=1, ge=1)
    seed: int = 3456
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class DatasetConfig(Frozen):
    """One data set: where it lies, how it is read, prepared, and scored; ``options`` are those of its loader."""

    title: str
    loader: str
    root: str
    labels: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    encoder: str = "imagenet"
    protocol: ProtocolConfig = ProtocolConfig()
    extract: ExtractConfig = ExtractConfig()
    demo: DemoConfig | None = None
    train: dict[str, Any] = Field(default_factory=dict)
    about: AboutConfig = AboutConfig()
    expected: ExpectedConfig = ExpectedConfig()


class SweepConfig(Frozen):
    """The grid of figure 8, trained where a sweep names no other."""

    head: str = "cefl"
    clips: tuple[int, ...] = (1, 3, 5, 7, 9)
    frames: tuple[int, ...] = (2, 5, 10, 15)
    seeds: int = Field(default=1, ge=1)


class PipelineConfig(Frozen):
    """configs/pipeline.yaml: the default data set, and the lists that dvc.yaml runs over."""

    dataset: str = "demo"
    datasets: tuple[str, ...] = ("demo",)
    encoders: tuple[str, ...] = ("actors",)
    heads: tuple[str, ...] = ("cefl", "mean")
    sweep: SweepConfig = SweepConfig()


class HeadsConfig(Frozen):
    """configs/heads.yaml."""

    train: TrainConfig = TrainConfig()


class EncoderConfig(Frozen):
    """configs/encoder.yaml: a key for each source that `ceflpipe encoder` can make without a file."""

    actors: ActorsConfig = ActorsConfig()
    imagenet: dict[str, Any] = Field(default_factory=dict)


def load_pipeline() -> PipelineConfig:
    return _load("pipeline", PipelineConfig)


def load_encoder_config() -> EncoderConfig:
    return _load("encoder", EncoderConfig)


def load_dataset(name: str) -> DatasetConfig:
    """Return the configuration of a data set; raises CeflError that names the configured ones when it is not one."""
    known = dataset_names()
    if name not in known:
        raise CeflError(
            f"--dataset {name}: not configured{did_you_mean(name, known) or ';'} known: {', '.join(known)}; "
            f"for your own videos write {HERE}/{name}.yaml, or use --manifest videos.csv"
        )
    return _load(name, DatasetConfig)


def load_train(dataset: DatasetConfig | None, **wanted: Any) -> TrainConfig:
    """Return stage two's settings: heads.yaml, over it what the data set's file says, over it what was typed."""
    base = _load("heads", HeadsConfig).train.model_dump()
    typed = {key: value for key, value in wanted.items() if value is not None}
    own = dataset.train if dataset else {}
    where = f"configs of {dataset.title}" if dataset else "command line"
    return _validated(TrainConfig, {**base, **own, **typed}, where, prefix="train.")


def loader_options(kind: type[Any], content: dict[str, Any], where: str) -> Any:
    """Return a loader's options, a frozen dataclass ``kind``; raises CeflError for an unknown or impossible one."""
    known = [field.name for field in fields(kind)]
    for key in content:
        if key not in known:
            hint = did_you_mean(str(key), known).replace("did you mean ", "did you mean options.")
            raise CeflError(f"{where}: unknown key options.{key}{hint or ';'} known: {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        problems = [_explain(Frozen, problem, where, "options.") for problem in error.errors()]
        raise CeflError("\n".join(problems)) from None


def dataset_names() -> list[str]:
    """Return every data set that has a file in configs/."""
    files = {file.stem: file for folder in (SHIPPED, HERE) if folder.is_dir() for file in folder.glob("*.yaml")}
    return sorted(set(files) - {"pipeline", "heads", "encoder"})


def _load(name: str, kind: type[Any]) -> Any:
    file = HERE / f"{name}.yaml"
    if not file.is_file():
        file = SHIPPED / f"{name}.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return kind()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CeflError(f"{file}: not YAML that can be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict | None):
        raise CeflError(f"{file}: expected 'key: value' lines, found {type(content).__name__}")
    return _validated(kind, content or {}, str(file))


def _validated(kind: type[Any], content: dict[str, Any], where: str, prefix: str = "") -> Any:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise CeflError("\n".join(_explain(kind, problem, where, prefix) for problem in error.errors())) from None


def _explain(kind: type[BaseModel], problem: Any, where: str, prefix: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = prefix + ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = sorted(_known_keys(kind, path[:-1]))
        inside = key.removesuffix(path[-1])
        hint = did_you_mean(path[-1], known).replace("did you mean ", f"did you mean {inside}")
        return f"{where}: unknown key {key}{hint or ';'} known: {', '.join(known)}"
    found = "" if problem["type"] == "missing" else f", found {problem['input']!r}"
    return f"{where}: {key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{found}"


def _known_keys(kind: type[BaseModel], path: list[str]) -> list[str]:
    fields = kind.model_fields
    for part in path:
        inner = fields[part].annotation
        candidates = [inner, *getattr(inner, "__args__", ())]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
        fields = model.model_fields
    return list(fields)
