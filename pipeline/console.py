"""How does the program speak to a person? Results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

PAGE = 110
"""Columns of a table where output does not go to a terminal."""


def console(stderr: bool = False) -> Console:
    """Return a console; rich itself leaves out colours where NO_COLOR is set or the output is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PAGE, highlight=False)


def say(text: str) -> None:
    """Print a remark for the person at the terminal (standard error)."""
    console(stderr=True).print(text, markup=False, soft_wrap=True)


def show(text: str) -> None:
    """Print a result (standard output)."""
    console().print(text, markup=False, soft_wrap=True)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print an aligned table; columns whose cells all look like numbers stand to the right."""
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", header_style="bold", pad_edge=False
    )
    for i, column in enumerate(columns):
        cells = [str(row[i]) for row in rows]
        numeric = any(cells) and all(not cell or cell[0].isdigit() or cell[0] in "+-—." for cell in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console().print(table)


def _plain(cell: object) -> str:
    from rich.markup import escape

    return escape(str(cell))


class Bar(Protocol):
    def __call__(self, advance: int = 1, note: str = "") -> None:
        """Move on by so many steps; ``note`` replaces the words after the bar."""
        ...


@contextmanager
def progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Bar]:
    """Show a progress bar on a terminal's standard error; silent elsewhere and with ``quiet``."""
    if quiet or not sys.stderr.isatty() or not total:
        yield lambda advance=1, note="": None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console(stderr=True)) as bars:
        bar = bars.add_task(what, total=total, note="")

        def move(advance: int = 1, note: str = "") -> None:
            bars.update(bar, advance=advance)
            if note:
                bars.update(bar, note=note)

        yield move
