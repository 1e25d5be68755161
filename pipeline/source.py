"""Which videos does a command work on: a configured data set, or a person's own list?"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..cache.errors import CeflError
from ..stages.manifest.scan import Scan
from ..stages.manifest.table import Manifest, read_manifest, write_manifest
from .config import DatasetConfig, ExtractConfig, ProtocolConfig, load_dataset, load_pipeline
from .places import features_file, manifest_file


@dataclass(frozen=True)
class Source:
    """A named set of videos. ``config`` is None for a list of a person's own; ``listing`` is the manifest CSV."""

    name: str
    config: DatasetConfig | None
    listing: Path
    root: Path
    labels: tuple[str, ...] | None
    allow_outside: bool = False

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
        """Read the manifest; that of a configured data set is made first when it is not there."""
        if self.config and not self.listing.is_file():
            self.scan_to_manifest()
        return read_manifest(
            self.listing, root=self.root, labels=self.labels, name=self.name, allow_outside=self.allow_outside
        )

    def scan_to_manifest(self) -> Scan:
        """Walk the data set's folder and write its manifest; raises CeflError when nothing is found."""
        found = self.scan()
        if not found.rows:
            raise CeflError(f"{self.root}: no video of {self.name} found in it; expected\n{self.layout()}")
        write_manifest(self.listing, found.rows)
        return found

    def scan(self) -> Scan:
        loader = self._loader()
        if not self.root.is_dir():
            raise CeflError(
                f"{self.name}: no folder {self.root} (from {self.root_from()}); point at the data with --root, with root: in "
                f"configs/{self.name}.yaml, or with {root_variable(self.name)}; expected\n{self.layout()}"
            )
        return loader.scan(self.root, self.labels or ())

    def layout(self) -> str:
        return self._loader().LAYOUT

    def root_from(self) -> str:
        if os.environ.get(root_variable(self.name)):
            return root_variable(self.name)
        return f"configs/{self.name}.yaml" if self.config and str(self.root) == self.config.root else "--root"

    def _loader(self):  # noqa: ANN202 - a module of stages/manifest
        if not self.config:
            raise CeflError(f"{self.listing}: a list of your own is the manifest already")
        known = ("demo", "csvlist", "folders")
        if self.config.loader not in known:
            raise CeflError(f"configs/{self.name}.yaml: unknown loader {self.config.loader}; known: {', '.join(known)}")
        return importlib.import_module(f"...stages.manifest.{self.config.loader}", __name__)


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
    place = root or Path(os.environ.get(root_variable(name)) or config.root)
    return Source(name, config, manifest_file(name), place.expanduser(), own or config.labels or None, allow_outside)


def root_variable(name: str) -> str:
    """Return the environment variable that says where a data set lies, e.g. CEFLPIPE_ROOT_MMI."""
    return "CEFLPIPE_ROOT_" + "".join(c if c.isalnum() else "_" for c in name).upper()
