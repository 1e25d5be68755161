"""Hooks of MkDocs: the pages of the repository as pages of the site, the notebook as a page, the version of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS, OWN = "docs", "docs/site/"
BESIDE_DOCS = {
    "README.md": "index.html",
    "CONTRIBUTING.md": None,
    "CHANGELOG.md": None,
    "SECURITY.md": None,
    "LICENSE": "LICENSE.txt",
    "CITATION.cff": None,
    "stages/extract/pretrained/LICENSE": "LICENSE-retinaface.txt",
}
"""Files outside docs/ that pages link to, with their path on the site where it is not their name."""
PACKAGE = ("__init__.py", "cache", "pipeline", "stages")
_SOURCES = tempfile.TemporaryDirectory(prefix="ceflpipe-docs-")


class NotebookPage(File):
    """A notebook that links name by its file, shown as a page."""

    def is_documentation_page(self) -> bool:
        return True

    @property
    def content_string(self) -> str:
        return markdown_of(json.loads(Path(self.abs_src_path or "").read_text(encoding="utf-8")), self.src_uri)


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the version, and let the reference read the sources of this repository, not those of an installed package."""
    version = package_version()
    published = os.environ.get("MIKE_DOCS_VERSION")
    if published not in (None, version):
        raise PluginError(f"these are the pages of version {version}, not {published}: mike deploy {version}")
    config.copyright = f"ceflpipe {version}, MIT licence"
    if published:  # a list of versions is beside the pages only where mike has put them
        config.extra["version"] = {"provider": "mike", "default": "latest"}
    package = Path(_SOURCES.name, "ceflpipe")
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir()
    for name in PACKAGE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, package / name)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_SOURCES.name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Name every file by its path in the repository, so that a link on a page leads to the same page here as there."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
            name = f"{DOCS}/{file.src_uri}"
            if name.startswith(OWN):
                continue
            kind = NotebookPage if name.endswith(".ipynb") else File
            destination = f"{file.name}/index.html" if kind is NotebookPage else file.dest_uri
            files.append(kind(name, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=destination))
            if kind is NotebookPage:  # itself, too, to download
                files.append(File(file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls))
    for name, destination in BESIDE_DOCS.items():
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=destination))
    return files


def package_version() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise PluginError('__init__.py has no line __version__ = "…"')
    return found[1]


def markdown_of(notebook: dict[str, Any], name: str) -> str:
    """Return a notebook as a page: its text, its code, and its outputs as they were saved; nothing is run."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [_output(output, name) for output in cell.get("outputs", ())]
    file = Path(name).name
    parts.insert(1, f"[Download the notebook](../{file})")
    return "\n\n".join(parts)


def _output(output: dict[str, Any], name: str) -> str:
    data = {kind: "".join(lines) for kind, lines in output.get("data", {}).items()}
    if "image/png" in data:
        return f"![Figure drawn by the code above](data:image/png;base64,{data['image/png'].replace(chr(10), '')})"
    if "text/html" in data:  # a table like the others: with the style of the site, which lets it scroll
        html = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
        return re.sub(r"<table[^>]*>", "<table>", html)
    text = data.get("text/plain") or "".join(output.get("text", ""))
    if not text:
        raise PluginError(f"{name}: no way to show an output of the kind {output['output_type']}: {', '.join(data)}")
    return f"```text\n{text}\n```"
