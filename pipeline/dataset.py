"""Data-set selection: --dataset, --manifest and --root resolved to a set of videos."""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cache.atomic import read_json, sha256_of
from ..cache.errors import CeflError, did_you_mean
from ..cache.ownership import check_files, write_owned_json
from ..stages.extract.extract_config import ExtractConfig
from ..stages.manifest.manifest import Manifest, read_manifest, write_manifest
from ..stages.manifest.scan import ScanResult
from .config import (
    DATASET_ALIASES,
    DatasetConfig,
    dataset_names,
    load_dataset_config,
    load_loader_options,
    load_pipeline_config,
)
from .console import log
from .names import claim_name, encoder_key, is_foreign_encoder, unique_name
from .paths import (
    encoder_file,
    features_file,
    features_folder,
    fold_encoders_folder,
    is_shard,
    manifest_file,
    manifest_settings_file,
)

LOADERS = (
    "afew", "bu4dfe", "caer", "ckplus", "cremad", "csv_list", "demo", "dfew", "enterface", "ferv39k", "folders", "mafw",
    "mmi", "oulucasia", "ravdess",
)  # fmt: skip
"""Modules of stages/manifest/loaders that a configuration's ``loader:`` may name."""


@dataclass(frozen=True)
class DatasetOptions:
    """Values of --dataset, --manifest, --root, --labels and --allow-external-paths."""

    dataset: str | None = None
    manifest: Path | None = None
    root: Path | None = None
    labels: tuple[str, ...] | None = None
    allow_external_paths: bool = False

    def resolve(self) -> DatasetSource:
        """Return the selected videos: a data set of configs/ (by default that of pipeline.yaml), or a manifest.

        A manifest that ``ceflpipe manifest`` wrote for a data set is that data set.
        """
        if self.dataset and self.manifest:
            raise CeflError("give --dataset or --manifest, not both")
        labels = self.labels or None
        dataset = self.dataset or (self.manifest and _dataset_of(self.manifest))
        if self.manifest and not dataset:
            root = self.root or self.manifest.parent
            stem = self.manifest.stem
            name = unique_name(stem, self.manifest, taken=stem in dataset_names())
            return DatasetSource(name, None, self.manifest, root, labels, self.allow_external_paths)
        name = dataset or load_pipeline_config().dataset
        if name not in dataset_names():
            name = DATASET_ALIASES.get(name, name)
        config = load_dataset_config(name)
        root, origin = _resolve_root(name, config, self.root)
        labels = labels or config.labels or None
        path = manifest_file(name)
        external = self.allow_external_paths or config.allow_external_paths
        return DatasetSource(name, config, path, root.expanduser(), labels, external, origin)


@dataclass(frozen=True)
class DatasetSource:
    """A named set of videos: a data set of configs/, or a list of your own, whose name belongs to its path.

    ``config`` is None for a manifest of your own (--manifest). ``root_origin``: what set ``root``: --root, an environment
    variable, or a configuration file. ``chosen_encoder``: --encoder, a name or a file; None: the data set's.
    """

    name: str
    config: DatasetConfig | None
    manifest_path: Path
    root: Path
    labels: tuple[str, ...] | None
    allow_external_paths: bool = False
    root_origin: str = "--root"
    chosen_encoder: str | None = None

    def with_encoder(self, encoder: str | None) -> DatasetSource:
        """Return the same videos with the features of another encoder, a name or a file; None: as it is."""
        return replace(self, chosen_encoder=encoder) if encoder else self

    @property
    def extract_config(self) -> ExtractConfig:
        config = self.config.extract if self.config else ExtractConfig()
        return config.model_copy(update={"encoder": Path(self.chosen_encoder)}) if self.chosen_encoder else config

    @property
    def features_path(self) -> Path:
        """The feature cache that ``extract`` writes without --out, or the folder of those of the folds (``encoder adapt``)."""
        name = encoder_key(self.extract_config.encoder)
        cache, folder = features_file(self.name, name), features_folder(self.name) / name
        if cache.exists() or not folder.is_dir():
            return cache
        from ..cache.hdf5 import fold_caches

        return folder if fold_caches(folder) else cache

    @property
    def fold_encoder_files(self) -> list[Path]:
        """The files of the encoders that were fine-tuned on the folds of these videos."""
        folder = fold_encoders_folder(self.name, encoder_key(self.extract_config.encoder))
        return sorted(folder.glob("fold-*.safetensors"))

    @property
    def feature_caches(self) -> list[Path]:
        """The feature caches of these videos, one for each encoder."""
        return sorted(features_folder(self.name).glob("*.h5"))

    def with_features_of(self, encoder: str | None, features: Path | None = None) -> DatasetSource:
        """Return the same videos with the features of an encoder that are there; ``features``: --features.

        Without ``encoder`` these are the data set's, or else the only ones that there are, or the first that pipeline.yaml
        lists.
        """
        caches = [cache for cache in self.feature_caches if not is_shard(cache)]
        if (
            features is not None
            and features.is_dir()
            and features.resolve().parent == features_folder(self.name).resolve()
        ):
            return self.with_encoder(features.name)  # of the encoders of folds
        if features is not None:
            same = [cache.stem for cache in caches if cache.resolve() == features.resolve()]
            return self.with_encoder(next(iter(same), encoder))
        if encoder or self.features_path.exists():
            return self.with_encoder(encoder)
        names = [cache.stem for cache in caches]
        usual = [name for name in load_pipeline_config().encoders if name in names]
        chosen = (names if len(names) == 1 else usual)[:1]
        if not chosen:
            return self
        log(f"features of encoder {chosen[0]}; there are none of {self.extract_config.encoder}")
        return self.with_encoder(chosen[0])

    def find_features(self, features: Path | None) -> Path:
        """Return the feature cache to read (None: the default).

        Raises CeflError if it does not exist but others of these videos do, which it names.
        """
        path = features or self.features_path
        others = [cache.stem for cache in self.feature_caches if not is_shard(cache)]
        if features is None and not path.exists() and others:
            raise CeflError(
                f"{path}: no such feature cache; there is one of encoder {', '.join(others)}: pass --encoder {others[0]}, or "
                f"create it with ceflpipe extract {self.option} --encoder {self.extract_config.encoder}"
            )
        return path

    @property
    def option(self) -> str:
        """The option of commands that selects these videos."""
        return f"--dataset {self.name}" if self.config else f"--manifest {shlex.quote(str(self.manifest_path))}"

    def is_own_cache(self, features: Path | None) -> bool:
        """Return whether a feature cache (None: the default) is the one that ``extract`` writes without --out."""
        return features is None or features.resolve() == self.features_path.resolve()

    def results_name(self, features: Path | None = None) -> str:
        """Return the folder of runs and sweeps below theirs: DATASET/ENCODER, or DATASET@CACHE for another feature cache."""
        if features is None or self.is_own_cache(features):
            return f"{self.name}/{encoder_key(self.extract_config.encoder)}"
        return unique_name(f"{self.name}@{features.stem}", features)

    def claim_names(self, features: Path | None = None) -> None:
        """Record which list and cache the names of the folders in artifacts/ belong to; say so if they are not the usual ones."""
        if self.config is None:
            claim_name(self.name, self.manifest_path)
            if self.name != self.manifest_path.stem:
                log(
                    f"{self.manifest_path} is called {self.name} in artifacts/: {self.manifest_path.stem} is another list"
                )
        if features is None and is_foreign_encoder(encoder := self.extract_config.encoder):
            claim_name(encoder_key(encoder), encoder_file(encoder))
        if features is not None and not self.is_own_cache(features):
            name = self.results_name(features)
            claim_name(name, features)
            log(f"{features} is not the cache of {self.name}: its results are called {name} in artifacts/")

    def manifest(self) -> Manifest:
        """Read the manifest; that of a configured data set is created first if it does not exist.

        Raises CeflError if it was created with other settings of the configuration than the current ones.
        """
        if self.config and not self.manifest_path.is_file():
            self.create_manifest(self.scan())
        self._check_manifest_settings()
        return read_manifest(
            self.manifest_path, root=self.root, labels=self.labels, name=self.name,
            allow_external_paths=self.allow_external_paths, named_by_user=self.config is None,
        )  # fmt: skip

    def create_manifest(self, result: ScanResult) -> None:
        """Write the manifest of a data set that has none; raises CeflError for files of its names that are not ours."""
        paths = [self.manifest_path, manifest_settings_file(self.manifest_path)]
        check_files(paths, f"ceflpipe manifest --dataset {self.name} --out", force=None)
        self.write(result)

    def write(self, result: ScanResult) -> None:
        """Write the manifest, and next to it the settings it was created with."""
        write_manifest(self.manifest_path, result.entries)
        record = {"sha256": sha256_of(self.manifest_path), "settings": self._manifest_settings()}
        write_owned_json(manifest_settings_file(self.manifest_path), record)

    def scan(self) -> ScanResult:
        """Scan the data set's folder; raises CeflError with what to do if it does not exist or holds no video."""
        loader = self._loader()
        arguments = self._loader_arguments(loader)
        if self.config and not self.root.is_dir():
            raise CeflError(self._missing_dataset_message(self.config))
        try:
            result = loader.scan(self.root, self.labels or (), **arguments)
        except OSError as error:
            raise CeflError(f"{error.filename or self.root}: cannot be read: {error.strerror or error}") from None
        if not result.entries:
            reasons = Counter(reason for _, reason in result.skipped).most_common(5)
            lines = "".join(f"\n  skipped {count}: {reason}" for reason, count in reasons)
            raise CeflError(f"{self.root}: no video of {self.name} in it; expected\n{self.layout()}{lines}")
        return result

    @property
    def lists_crops(self) -> bool:
        """Whether the data set's loader lists other files for face crops than for videos."""
        return bool(self.config) and _lists_crops(self._loader())

    def layout(self) -> str:
        return self._loader().LAYOUT

    def _missing_dataset_message(self, config: DatasetConfig) -> str:
        lines = [f"{self.name}: no folder {self.root} (from {self.root_origin})"]
        if config.card.description:
            lines.append(f"{config.title}: {config.card.description}")
        if config.card.access:
            lines.append(f"How to obtain: {config.card.access}")
        lines += [f"Expected layout: {self.layout()}", location_hint(self.name)]
        return "\n".join(lines)

    def _loader(self) -> Any:  # a module of stages/manifest/loaders
        if not self.config:
            raise CeflError(f"{self.manifest_path}: is a manifest already; there is no folder to scan")
        name = self.config.loader
        if name not in LOADERS:
            raise CeflError(f"configs/{self.name}.yaml: unknown loader {name}{did_you_mean(name, LOADERS)}")
        return importlib.import_module(f"...stages.manifest.loaders.{name}", __name__)

    def _loader_arguments(self, loader: Any) -> dict[str, Any]:
        """Return what the loader takes besides folder and labels: ``options``, ``input``, ``allow_external_paths``."""
        if not self.config:
            return {}
        path, options = f"configs/{self.name}.yaml", self.config.options
        arguments: dict[str, Any] = {"input": self.extract_config.input} if _lists_crops(loader) else {}
        if "allow_external_paths" in inspect.signature(loader.scan).parameters:
            arguments["allow_external_paths"] = self.allow_external_paths
        if hasattr(loader, "Options"):
            arguments["options"] = load_loader_options(loader.Options, options, path)
        elif options:
            raise CeflError(
                f"{path}: unknown key options.{next(iter(options))}; the loader {self.config.loader} has none"
            )
        return arguments

    def _manifest_settings(self) -> dict[str, Any]:
        """Return the part of the configuration that decides the manifest."""
        if not self.config:
            return {}
        settings = self.config.model_dump(mode="json", include={"loader", "labels", "options"})
        settings |= {f"options.{key}": value for key, value in settings.pop("options").items()}
        return settings | ({"extract.input": self.extract_config.input} if self.lists_crops else {})

    def _check_manifest_settings(self) -> None:
        path = manifest_settings_file(self.manifest_path)
        if not self.config or not path.is_file() or not self.manifest_path.is_file():
            return
        record = read_json(path, "the settings of a manifest")
        if record.get("sha256") != sha256_of(self.manifest_path):
            return  # edited or replaced since, so these settings are not its own
        before, now = record.get("settings", {}), self._manifest_settings()
        changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        if changed:
            diff = "; ".join(f"{key} {before.get(key, 'unset')}, now {now.get(key, 'unset')}" for key in changed[:3])
            raise CeflError(
                f"{self.manifest_path}: was created with different settings of configs/{self.name}.yaml ({diff}); "
                f"recreate it with ceflpipe manifest --dataset {self.name}"
            )


def _dataset_of(manifest: Path) -> str | None:
    """Return the data set whose manifest a path is, None for a list of your own."""
    own = manifest_file(manifest.stem)
    same = manifest.name == own.name and manifest.parent.resolve() == own.parent.resolve()
    return manifest.stem if same and manifest.stem in dataset_names() else None


def _lists_crops(loader: Any) -> bool:
    """Return whether a loader can list the videos of its data set or the face crops distributed with it."""
    return "input" in inspect.signature(loader.scan).parameters


def location_hint(name: str) -> str:
    """Return the sentence that says how to set the location of a data set."""
    return (
        f"Set its location with --root FOLDER, with root: in configs/{name}.yaml, or with "
        f"export {root_variable(name)}=FOLDER"
    )


def root_variable(name: str) -> str:
    """Return the environment variable that holds the location of a data set, e.g. CEFLPIPE_ROOT_MMI."""
    return "CEFLPIPE_ROOT_" + "".join(c if c.isalnum() else "_" for c in name).upper()


def _resolve_root(name: str, config: DatasetConfig, option: Path | None) -> tuple[Path, str]:
    """Return the folder of a data set and what set it."""
    value = os.environ.get(root_variable(name))
    if option:
        return option, "--root"
    if value:
        return Path(value), root_variable(name)
    return Path(config.root), f"root: in configs/{name}.yaml"
