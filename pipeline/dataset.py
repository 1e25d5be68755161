"""Resolve --dataset, --manifest and --root to a set of videos."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.atomic import read_json, sha256_of, write_json
from ..cache.errors import CeflError, did_you_mean
from ..stages.manifest.manifest import Manifest, read_manifest, write_manifest
from ..stages.manifest.scan import Scan
from .config import DatasetConfig, ExtractConfig, ProtocolConfig, load_dataset, load_pipeline, loader_options
from .paths import features_file, manifest_file, manifest_made_with_file

LOADERS = (
    "afew", "bu4dfe", "caer", "ckplus", "cremad", "csv_list", "demo", "dfew", "enterface", "ferv39k", "folders", "mafw",
    "mmi", "oulucasia", "ravdess",
)  # fmt: skip
"""The files of stages/manifest that a configuration's ``loader:`` may name."""


@dataclass(frozen=True)
class Source:
    """A named set of videos.

    ``config`` is None for a list of a person's own; ``listing`` is the manifest CSV; ``root_from`` says who named the
    folder ``root``: --root, an environment variable, or a configuration file.
    """

    name: str
    config: DatasetConfig | None
    listing: Path
    root: Path
    labels: tuple[str, ...] | None
    allow_outside: bool = False
    root_from: str = "--root"

    @property
    def extract(self) -> ExtractConfig:
        return self.config.extract if self.config else ExtractConfig()

    @property
    def protocol(self) -> ProtocolConfig:
        return self.config.protocol if self.config else ProtocolConfig()

    @property
    def features(self) -> Path:
        return features_file(self.name)

    def manifest(self) -> Manifest:
        """Read the manifest; that of a configured data set is made first when it is not there.

        Raises CeflError when it was made with other settings of the configuration than stand there now.
        """
        if self.config and not self.listing.is_file():
            self.scan_to_manifest()
        self._refuse_made_otherwise()
        return read_manifest(
            self.listing, root=self.root, labels=self.labels, name=self.name, allow_outside=self.allow_outside
        )

    def scan_to_manifest(self) -> Scan:
        """Walk the data set's folder and write its manifest; raises CeflError when nothing is found."""
        found = self.scan()
        self.write(found)
        return found

    def write(self, found: Scan) -> None:
        """Write the manifest, and beside it what of the configuration it was made with."""
        write_manifest(self.listing, found.rows)
        made_with = {"sha256": sha256_of(self.listing), "settings": self._settings()}
        write_json(manifest_made_with_file(self.listing), made_with)

    def scan(self) -> Scan:
        """Walk the data set's folder; raises CeflError, with all that a person needs, when nothing is there."""
        loader = self._loader()
        options = self._options(loader)
        if self.config and not self.root.is_dir():
            raise CeflError(self._absent(self.config))
        labels = self.labels or ()
        try:
            found = loader.scan(self.root, labels) if options is None else loader.scan(self.root, labels, options)
        except OSError as error:
            raise CeflError(f"{error.filename or self.root}: cannot be read: {error.strerror or error}") from None
        if not found.rows:
            reasons = Counter(reason for _, reason in found.left_out).most_common(5)
            said = "".join(f"\n  left out {count}: {reason}" for reason, count in reasons)
            raise CeflError(f"{self.root}: no video of {self.name} found in it; expected\n{self.layout()}{said}")
        return found

    def layout(self) -> str:
        return self._loader().LAYOUT

    def _absent(self, config: DatasetConfig) -> str:
        """Say what the data set is, where to get it, what is expected and how to point at it."""
        lines = [f"{self.name}: no folder {self.root} (from {self.root_from})"]
        if config.about.what:
            lines.append(f"{config.title}: {config.about.what}")
        if config.about.obtain:
            lines.append(f"to be had: {config.about.obtain}")
        lines.append(f"expected: {self.layout()}")
        lines.append(
            f"point at it with --root FOLDER, with root: in configs/{self.name}.yaml, or with "
            f"export {root_variable(self.name)}=FOLDER"
        )
        return "\n".join(lines)

    def _loader(self) -> Any:  # a module of stages/manifest
        if not self.config:
            raise CeflError(f"{self.listing}: a list of your own is the manifest already")
        name = self.config.loader
        if name not in LOADERS:
            hint = did_you_mean(name, LOADERS) or ";"
            raise CeflError(f"configs/{self.name}.yaml: unknown loader {name}{hint} known: {', '.join(LOADERS)}")
        return importlib.import_module(f"...stages.manifest.loaders.{name}", __name__)

    def _options(self, loader: Any) -> Any:
        """Return the loader's options, or None where it has none."""
        if not self.config:
            return None
        where, given = f"configs/{self.name}.yaml", self.config.options
        if not hasattr(loader, "Options"):
            if given:
                raise CeflError(
                    f"{where}: unknown key options.{next(iter(given))}; the loader {self.config.loader} has none"
                )
            return None
        options = loader_options(loader.Options, given, where)
        crops, faces = getattr(options, "use", "") == "crops", self.extract.faces
        if hasattr(options, "use") and crops != (faces == "given"):
            wanted = "given" if crops else "detect"
            raise CeflError(
                f"{where}: options.use: {options.use} needs extract: {{faces: {wanted}}}, found {faces}; "
                "crops are only resized, in videos the faces are found first"
            )
        return options

    def _settings(self) -> dict[str, Any]:
        """Return what of the configuration decides what stands in the manifest."""
        if not self.config:
            return {}
        settings = self.config.model_dump(mode="json", include={"loader", "labels", "options"})
        return {**{key: settings[key] for key in ("loader", "labels")}, **_flat("options", settings["options"])}

    def _refuse_made_otherwise(self) -> None:
        record = manifest_made_with_file(self.listing)
        if not self.config or not record.is_file() or not self.listing.is_file():
            return
        made = read_json(record, "the settings of a manifest")
        if made.get("sha256") != sha256_of(self.listing):
            return  # edited or brought back since: whoever did it knows what it is
        was, now = made.get("settings", {}), self._settings()
        changed = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
        if changed:
            told = "; ".join(f"{key} {was.get(key, 'unset')}, now {now.get(key, 'unset')}" for key in changed[:3])
            raise CeflError(
                f"{self.listing}: made with other settings of configs/{self.name}.yaml ({told}); "
                f"make it anew with ceflpipe manifest --dataset {self.name}"
            )


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in values.items()}


def find_source(
    dataset: str | None,
    manifest: Path | None,
    root: Path | None,
    labels: str | None = None,
    *,
    allow_outside: bool = False,
) -> Source:
    """Return what --dataset, --manifest and --root come to; without either the default data set of pipeline.yaml."""
    if dataset and manifest:
        raise CeflError("give --dataset or --manifest, not both")
    own = tuple(word.strip() for word in labels.split(",") if word.strip()) if labels else None
    if manifest:
        return Source(manifest.stem, None, manifest, root or manifest.parent, own, allow_outside)
    name = dataset or load_pipeline().dataset
    config = load_dataset(name)
    place, named_by = _root_of(name, config, root)
    wanted = own or config.labels or None
    return Source(name, config, manifest_file(name), place.expanduser(), wanted, allow_outside, named_by)


def _root_of(name: str, config: DatasetConfig, typed: Path | None) -> tuple[Path, str]:
    variable = os.environ.get(root_variable(name))
    if typed:
        return typed, "--root"
    if variable:
        return Path(variable), root_variable(name)
    return Path(config.root), f"root: in configs/{name}.yaml"


def root_variable(name: str) -> str:
    """Return the environment variable that says where a data set lies, e.g. CEFLPIPE_ROOT_MMI."""
    return "CEFLPIPE_ROOT_" + "".join(c if c.isalnum() else "_" for c in name).upper()
