"""ceflpipe datasets: the configured data sets, how to obtain them, and which are available."""

from __future__ import annotations

from typing import Any

import click

from ...cache.errors import CeflError
from ..config import dataset_names, load_cv_config
from ..console import echo, echo_json
from ..dataset import DatasetOptions, DatasetSource, location_hint
from .options import json_option


@click.command(
    name="datasets",
    epilog="Examples: ceflpipe datasets; ceflpipe datasets mmi",
    short_help="List the data sets: how to obtain them, whether they are available, how they are scored.",
)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the configured data sets; with a NAME, details of one: how to obtain it, its layout, its counts."""
    cards = [_describe(DatasetOptions(each).resolve()) for each in ([name] if name else dataset_names())]
    if as_json:
        echo_json(cards[0] if name else cards)
    elif name:
        _print_card(cards[0])
    else:
        _print_list(cards)
        echo("details: ceflpipe datasets NAME; contents of an available one: ceflpipe check --dataset NAME")


def _describe(source: DatasetSource) -> dict[str, Any]:
    config = source.config
    if config is None:
        raise CeflError(f"{source.name}: not a configured data set")
    return {
        "name": source.name,
        "title": config.title,
        "description": config.card.description,
        "reference": config.card.reference,
        "access": config.card.access,
        "root": str(source.root),
        "available": source.root.is_dir(),
        "labels": list(config.labels),
        "protocol": load_cv_config(config).describe(),
        "protocol_notes": config.card.protocol_notes,
        "expected": config.expected.model_dump(),
        "unverified": list(config.card.unverified),
        "layout": source.layout(),
    }


def _print_list(cards: list[dict[str, Any]]) -> None:
    width = max(len(card["name"]) for card in cards)
    for card in cards:
        state = f"available in {card['root']}" if card["available"] else f"not in {card['root']}"
        echo(f"{card['name']:{width}}  {card['title']}; {card['protocol']}; {state}")
        if card["access"]:
            echo(f"{'':{width}}  {card['access']}")


def _print_card(card: dict[str, Any]) -> None:
    echo(f"{card['name']}: {card['title']}")
    for heading, key in (
        ("description", "description"), ("reference", "reference"), ("how to obtain", "access"),
        ("protocol", "protocol"), ("protocol notes", "protocol_notes"),
    ):  # fmt: skip
        if card[key]:
            echo(f"{heading}: {card[key]}")
    expected = card["expected"]
    counts = [f"{expected[key]} {key}" for key in ("videos", "subjects") if expected[key] is not None]
    if counts:
        echo(f"expected: {', '.join(counts)}")
    for line in card["unverified"]:
        echo(f"not verified: {line}")
    echo(f"available: {'yes, in' if card['available'] else 'no, not in'} {card['root']}")
    echo(f"layout: {card['layout']}")
    echo(location_hint(card["name"]))
