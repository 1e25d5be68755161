"""Terminal output: results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from ..stages.heads.run_io import Run


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


SCHEMES = {
    "subject": "subject-wise",
    "clipwise": "clip-wise (subjects are shared between train and test)",
    "official": "official",
    "split": "train -> val",
}


def tell_run(run: Run) -> None:
    """Print what a person wants to know of a run: scores with n and spread, recall per label, confusion, locating."""
    metrics, protocol = run.metrics, run.about["protocol"]
    show(f"{run.recipe.head} on {run.about['dataset']}: {scheme_of(run)}, n = {metrics['videos']} videos")
    if metrics["optimistic"]:
        show(
            "optimistic: the epoch with the best test score was kept (--select best-test); not comparable with --select last"
        )
    rows = [("WAR (accuracy)", *percent(metrics["war"])), ("UAR", *percent(metrics["uar"]))]
    if metrics["videos_without_prediction"]:
        rows.append(("WAR, faces found", *percent(metrics["war_faces_found"])))
    if metrics["locating"]:
        chance = f"chance {metrics['locating']['chance']:.1%}"
        rows.append((f"locating accuracy ({chance})", *percent(metrics["locating"]["predicted_label"])))
        rows.append(("  by the true label's map", *percent(metrics["locating"]["true_label"])))
    show_table(["", "mean %", "std % (ddof 0)", "std % (ddof 1)", "over"], rows)
    if metrics["videos_without_prediction"]:
        show(f"{metrics['videos_without_prediction']} videos without a usable face count as errors in WAR and UAR")
    _tell_confusion(run)
    show(f"seed {', '.join(map(str, protocol['seeds']))}; {run.recipe.epochs} epochs; {run.about['command']}")


def scheme_of(run: Run) -> str:
    """Say the fold scheme with its number, e.g. '10 subject-wise folds x 3 seeds'."""
    folds, seeds = run.metrics["folds"], run.metrics["seeds"]
    scheme = SCHEMES[run.about["protocol"]["scheme"]]
    name = scheme if folds == 1 else f"{folds} folds, {scheme}"
    return name if seeds == 1 else f"{name}, {seeds} seeds"


def percent(spread: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return mean, both deviations and n of a spread for a table; an em dash where there is nothing."""

    def number(value: float | None) -> str:
        return "—" if value is None else f"{100 * value:.2f}"

    return number(spread["mean"]), number(spread["std_ddof0"]), number(spread["std_ddof1"]), str(spread["n"])


def _tell_confusion(run: Run) -> None:
    labels, counts = run.labels, run.metrics["confusion"]
    without = any(row[-1] for row in counts)
    columns = ["true \\ predicted", *labels, *(["no face"] if without else []), "recall %"]
    rows = []
    for label, row in zip(labels, counts, strict=True):
        recall = run.metrics["recall"][label]
        shown = row if without else row[:-1]
        rows.append([label, *shown, "—" if recall is None else f"{100 * recall:.1f}"])
    show_table(columns, rows)


MOST_SHOWN = 20


def show_failures(failed: Sequence[tuple[str, str, str]], videos: int) -> None:
    """Show (id, status, note) of each, up to MOST_SHOWN, under a line that counts them all."""
    if not failed:
        return
    shown = failed[:MOST_SHOWN]
    show_table(["video", "status", "what happened"], shown, title=f"{len(failed)} of {videos} videos failed")
    if len(shown) < len(failed):
        show(f"… and {len(failed) - len(shown)} more; all of them with --json")
