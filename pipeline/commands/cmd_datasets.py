"""ceflpipe datasets: which data sets are configured, where they come from, and which are here."""

from __future__ import annotations

from typing import Any

import click

from ...cache.errors import CeflError
from ..config import DatasetConfig, dataset_names
from ..console import SCHEMES, show, show_json
from ..dataset import Source, find_source, root_variable
from .options import json_option


@click.command(
    name="datasets",
    epilog="Examples: ceflpipe datasets; ceflpipe datasets mmi",
    short_help="List the data sets: where they come from, whether they are here, how they are scored.",
)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the configured data sets; with a NAME, say all about one: how to obtain it, its layout, its counts."""
    known = [_described(find_source(each, None, None)) for each in ([name] if name else dataset_names())]
    if as_json:
        show_json(known[0] if name else known)
    elif name:
        _show_one(known[0])
    else:
        _show_all(known)
        show("all about one: ceflpipe datasets NAME; what is in one that is here: ceflpipe check --dataset NAME")


def _described(source: Source) -> dict[str, Any]:
    config = source.config
    if config is None:
        raise CeflError(f"{source.name}: not a configured data set")
    about = config.about
    return {
        "name": source.name,
        "title": config.title,
        "what": about.what,
        "source": about.source,
        "obtain": about.obtain,
        "here": str(source.root) if source.root.is_dir() else None,
        "looked_in": str(source.root),
        "labels": list(config.labels),
        "protocol": protocol_of(config),
        "convention": about.convention,
        "expected": config.expected.model_dump(),
        "unverified": list(about.unverified),
        "layout": source.layout(),
    }


def protocol_of(config: DatasetConfig) -> str:
    """Say how a data set is scored, e.g. '10 folds, subject-wise'."""
    scheme, folds = config.protocol.scheme, config.protocol.folds
    words = SCHEMES[scheme].partition(" (")[0]
    return words if scheme == "split" else f"{folds} folds, {words}"


def _show_all(known: list[dict[str, Any]]) -> None:
    widest = max(len(each["name"]) for each in known)
    for each in known:
        here = f"here, in {each['here']}" if each["here"] else f"not in {each['looked_in']}"
        show(f"{each['name']:{widest}}  {each['title']}; {each['protocol']}; {here}")
        if each["obtain"]:
            show(f"{'':{widest}}  {each['obtain']}")


def _show_one(one: dict[str, Any]) -> None:
    show(f"{one['name']}: {one['title']}")
    for title in ("what", "source", "obtain", "protocol", "convention"):
        if one[title]:
            show(f"{title}: {one[title]}")
    expected = one["expected"]
    counts = [f"{expected[key]} {key}" for key in ("videos", "subjects") if expected[key] is not None]
    if counts:
        show(f"expected: {', '.join(counts)}")
    for line in one["unverified"]:
        show(f"not verified: {line}")
    show(f"here: {one['here'] or 'no, looked in ' + one['looked_in']}")
    show(f"layout: {one['layout']}")
    show(
        f"point at it with --root FOLDER, with root: in configs/{one['name']}.yaml, or with "
        f"export {root_variable(one['name'])}=FOLDER"
    )
