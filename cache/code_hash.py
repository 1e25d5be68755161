"""Hash of the code that a stage runs: what makes results of one version of the code different from those of another."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def code_files(*entries: str) -> list[str]:
    """Return the modules that the ``entries`` need, themselves included, as sorted paths relative to the package.

    These are the imports below stages/ and cache/, also those inside functions, without ``__init__`` files: what dvc.yaml
    lists for a stage.

    >>> code_files("cache/errors.py")
    ['cache/errors.py']
    """
    return sorted(_parse_closure(entries))


@lru_cache(maxsize=8)
def code_hash(*entries: str) -> str:
    """Return 16 hex digits over the ``code_files`` of the entries that change when their code does.

    Comments, docstrings, layout and line ends do not count. The hash is computed once per process: called when a stage is
    imported, it is that of the code which the process has loaded, whatever is edited while it runs.
    """
    digest = hashlib.sha256()
    for name, text in sorted(_parse_closure(entries).items()):
        digest.update(f"{name}\n\n{text}".encode())
    return digest.hexdigest()[:16]


def _parse_closure(entries: tuple[str, ...]) -> dict[str, str]:
    """Return the code of the modules that the entries need, as text, by their path relative to the package."""
    waiting, texts = [PACKAGE / entry for entry in entries], {}
    while waiting:
        path = waiting.pop()
        name = path.relative_to(PACKAGE).as_posix()
        if name not in texts:
            texts[name], imported = _parse(path)
            waiting.extend(imported)
    return texts


@lru_cache(maxsize=256)
def _parse(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Return the code of a module as text, and the modules that it imports; once per process, for the stages share modules."""
    tree = ast.parse(path.read_bytes())
    parts: list[str] = []
    _dump(tree, parts)
    return "\n".join(parts), tuple(_imports(path, tree))


def _imports(path: Path, tree: ast.Module) -> Iterator[Path]:
    """Yield the modules of the package that a module imports relatively."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for candidate in (base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)):
                if candidate.is_file():
                    yield candidate


def _dump(node: object, parts: list[str]) -> None:
    """Append a syntax tree as text, without docstrings, and without empty fields, which differ between versions of Python."""
    if isinstance(node, list):
        parts.append("[")
        for item in node:
            _dump(item, parts)
        parts.append("]")
    elif not isinstance(node, ast.AST):
        parts.append(repr(node))
    else:
        parts.append(type(node).__name__)
        for key in node._fields:
            value = getattr(node, key, None)
            if value is None or value == [] or key == "ctx":  # ctx, load or store, follows from where a node stands
                continue
            parts.append(key)
            _dump(value[1:] if key == "body" and _has_docstring(node) else value, parts)
        parts.append(";")


def _has_docstring(node: ast.AST) -> bool:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
