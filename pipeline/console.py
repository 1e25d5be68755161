"""Terminal output: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..stages.callbacks import ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from ..stages.extract.plan import ExtractPlan
    from ..stages.heads.run_io import Run

DEFAULT_WIDTH = 140
"""Columns of a table if the output is not a terminal."""
LINE_SECONDS = 60
"""Between two lines of progress_lines."""
MAX_FAILURES = 20
"""Failed videos listed in the terminal."""
BLOCKS, ASCII_BLOCKS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
"""Nothing to full, in eighths."""
AS_ASCII = str.maketrans({"–": "-", "—": "-", "…": "...", "±": "+-", "─": "-", "█": "#"})
MIN_NAME_WIDTH = 12
"""Columns that the first cell of a printed row has at least, however narrow the terminal is."""


def console(stderr: bool = False) -> Console:
    """Return a console; rich itself leaves out colors if NO_COLOR is set or the output is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else DEFAULT_WIDTH, highlight=False)


_live: list[Progress] = []
"""The progress bar that is shown now, if any."""


def log(text: str, *, wrap: bool = False) -> None:
    """Print a note (standard error); ``wrap``: break its lines between words on a terminal."""
    console(stderr=True).print(text, markup=False, soft_wrap=not (wrap and sys.stderr.isatty()))


def log_extract_plan(plan: ExtractPlan, subject: str, verb: str) -> None:
    """Print what of ``subject`` is cached and pending ('N to ``verb``'), why, and where the faces are from."""
    for file, new_name in plan.set_aside:
        log(f"{file}: not usable, kept as {new_name}")
    log(f"{subject}: {len(plan.cached)} cached, {len(plan.pending)} to {verb}")
    for reason, number in plan.reasons.items():
        log(f"  {number} {reason}")
    for file, number in plan.known_tracks.items():
        log(f"  {number} with the faces that {file} has")


@contextmanager
def kept_on_interruption(text: str) -> Iterator[None]:
    """Say in the last line of an interrupted command (Ctrl-C, a full disk) what of its work is kept."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError, OSError) as error:
        error.add_note(text)
        raise


def echo(text: str | Text) -> None:
    """Print a result (standard output)."""
    if isinstance(text, str) and not prints_blocks():
        text = text.translate(AS_ASCII)
    above_bar = bool(_live) and sys.stdout.isatty()  # else it goes to a file or a pipe, where no bar is
    (_live[-1].console if above_bar else console()).print(text, markup=False, soft_wrap=True)


def prints_blocks() -> bool:
    """Return whether standard output can show dashes and blocks, as UTF-8 can."""
    try:
        f"–…±{BLOCKS}".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def draws_charts() -> bool:
    """Return whether standard output is a terminal on which charts are wanted: NO_COLOR asks for plain lines."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class Column(NamedTuple):
    """A column of printed rows: its title, the width of its cells, and whether they are numbers, which stand right."""

    title: str
    width: int
    is_number: bool = False


class RowPrinter:
    """Prints a table row by row, as results come, the header with the first.

    The first column has room for names of ``name_width``; on a narrower terminal long names are cut at their start.
    """

    def __init__(self, first: str, name_width: int, columns: Sequence[Column]) -> None:
        self._columns = [column._replace(width=max(column.width, len(column.title))) for column in columns]
        others = sum(2 + column.width for column in self._columns)
        available = max(MIN_NAME_WIDTH, console().width - others - 1) if sys.stdout.isatty() else name_width
        self._first = Column(first, min(max(name_width, len(first)), available))
        self._has_header = False

    def __call__(self, name: str, cells: Sequence[str]) -> None:
        if not self._has_header:
            self._has_header = True
            titles = self._line(self._first.title, [column.title for column in self._columns])
            echo(Text(titles, style="bold"))
            echo("─" * cell_len(titles))
        echo(self._line(name, cells))

    def _line(self, name: str, cells: Sequence[str]) -> str:
        while cell_len(name) > self._first.width:
            name = f"…{name[2:] if name.startswith('…') else name[1:]}"
        texts = [set_cell_size(name, self._first.width)]
        for column, cell in zip(self._columns, cells, strict=True):
            padding = " " * (column.width - cell_len(cell))
            texts.append(padding + cell if column.is_number else cell + padding)
        return "  ".join(texts).rstrip()


def echo_chart_over_time(rows: Mapping[str, Sequence[float]], begin: float, end: float) -> None:
    """Print values (0..1, NaN for unknown) over a span of seconds: a row per name, its name, a bar per value, and its mean.

    A bar stands out in the row that has the highest value at its time. See ``chart_width`` for how many values fit.
    """
    blocks = BLOCKS if prints_blocks() else ASCII_BLOCKS
    values = list(rows.values())
    leading = [
        max(range(len(values)), key=lambda row: values[row][i] if values[row][i] == values[row][i] else -1.0)
        for i in range(len(values[0]))
    ]
    width = max(map(cell_len, rows))
    for row, (name, numbers) in enumerate(rows.items()):
        text = Text(f"  {set_cell_size(name, width)}  ")
        for i, value in enumerate(numbers):
            block = blocks[max(0, min(8, round(8 * value)))] if value == value else " "
            text.append(block, style="bold cyan" if leading[i] == row else "dim")
        known = [value for value in numbers if value == value]
        text.append(f"  {100 * sum(known) / max(1, len(known)):3.0f} %")
        echo(text)
    first, last = f"{begin:.1f} s", f"{end:.1f} s"
    echo(Text(f"  {' ' * width}  {first}{' ' * max(1, len(leading) - len(first) - len(last))}{last}", style="dim"))


def chart_width(names: Sequence[str]) -> int:
    """Return how many bars ``echo_chart_over_time`` has room for beside these names."""
    return max(10, min(120, console().width - max(map(cell_len, names)) - 12))


def echo_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def echo_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print an aligned table; columns whose cells all look like numbers are right-aligned."""
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", header_style="bold", pad_edge=False
    )
    for i, column in enumerate(columns):
        cells = [str(row[i]) for row in rows]
        numeric = any(cells) and all(not cell or cell[0].isdigit() or cell[0] in "+-—." for cell in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console().print(table)


@contextmanager
def progress(label: str, *, quiet: bool = False, transient: bool = False) -> Iterator[ProgressCallback]:
    """Show a progress bar on a terminal's standard error; silent elsewhere and with ``quiet``. ``transient``: gone at the end."""
    if quiet or not sys.stderr.isatty():
        yield ignore_progress
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console(stderr=True), redirect_stdout=False, transient=transient) as display:
        bar = display.add_task(label, total=None, note="")

        def update(completed: int, total: int, note: str = "") -> None:
            display.update(bar, completed=completed, total=total or None)
            if note:
                display.update(bar, note=note)

        _live.append(display)
        try:
            yield update
        finally:
            _live.remove(display)


@contextmanager
def progress_lines(label: str, *, quiet: bool = False) -> Iterator[ProgressCallback]:
    """Print a line on standard error once a minute, for hours of work whose output goes to a file; silent with ``quiet``."""
    yield ignore_progress if quiet else _LinePrinter(label)


class _LinePrinter:
    def __init__(self, label: str) -> None:
        self._label = label
        self._begin = self._printed = time.monotonic()
        self._first, self._total = 0, -1

    def __call__(self, completed: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if total != self._total:  # another kind of work, counted anew
            self._begin, self._first, self._total = now, completed, total
        if now - self._printed >= LINE_SECONDS and completed > self._first:
            self._printed = now
            minutes = (now - self._begin) / (completed - self._first) * (total - completed) / 60
            log(f"{self._label}: {completed} of {total}, {note}, {minutes:.0f} minutes left")


def print_run_plan(quiet: bool) -> Callable[[int, Mapping[str, int]], None]:
    """Return the function that prints how many runs are cached, and why the others are trained."""

    def plan(cached: int, reasons: Mapping[str, int]) -> None:
        if not quiet and set(reasons) - {"new"}:  # what is redone is said, not what is done
            log(", ".join([f"{cached} runs are cached", *(f"{count} {reason}" for reason, count in reasons.items())]))

    return plan


def print_run(run: Run) -> None:
    """Print the scores of a run with n and spread, the confusion matrix, and what was run; of a final model those to expect."""
    if run.is_final:
        _print_final(run)
        return
    metrics, locating = run.metrics, run.metrics["locating_accuracy"]
    echo(f"{run.train_config.head} on {run.config['dataset']}: {run.describe_cv()}, n = {metrics['videos']} videos")
    if metrics["optimistic"]:
        echo(
            "optimistic: the epoch with the best test score was kept (--checkpoint best-test); "
            "not comparable with --checkpoint last"
        )
    rows = [("WAR (accuracy)", *format_mean_std(metrics["war"])), ("UAR", *format_mean_std(metrics["uar"]))]
    if metrics["videos_without_prediction"]:
        rows.append(("WAR, videos with a face", *format_mean_std(metrics["war_with_face"])))
    if locating:
        chance = f" (chance {locating['chance']:.1%})" if locating["reachable"] else ""
        rows.append((f"locating accuracy{chance}", *format_mean_std(locating["predicted_label"])))
        rows.append(("  in the map of the true label", *format_mean_std(locating["true_label"])))
    echo_table(["", "mean %", "std % (ddof 0)", "std % (ddof 1)", "n"], rows)
    if locating:
        echo(describe_reachable(locating, metrics["videos"]))
    if metrics["videos_without_prediction"]:
        echo(f"{metrics['videos_without_prediction']} videos without a usable face count as errors in WAR and UAR")
    _print_calibration(run)
    _print_confusion(run)
    for note in run.config.get("notes", ()):
        echo(f"note: {note}")
    _print_training(run)
    seeds = ", ".join(map(str, run.cv.seeds))
    echo(f"seed {seeds}; {run.train_config.epochs} epochs; {run.config['command']}")


def _print_calibration(run: Run) -> None:
    from ..stages.heads.calibration import describe_calibration

    if run.calibration:
        echo(describe_calibration(run.calibration))


def _print_training(run: Run) -> None:
    """Print what was chosen for each fold, and how far training had come."""
    from ..stages.heads.comparison import values_at_an_edge

    if run.cv.tune:
        models, chosen = run.settings_by_model(), run.tuning()
        scores = chosen[chosen.is_chosen].groupby("fold").held_out_war.mean()
        rows = []
        for fold in dict.fromkeys(model["fold"] for model in models):
            own = [model for model in models if model["fold"] == fold]
            cells = (", ".join(f"{model[name]:g}" for model in own) for name in run.cv.tune)
            rows.append([fold, *cells, f"{100 * scores[fold]:.2f}"])
        by_seed = f", seeds {', '.join(map(str, run.cv.seeds))}" if run.cv.num_seeds > 1 else ""
        names = [name.replace("_", " ") for name in run.cv.tune]
        title = f"chosen for each fold on held-out videos of its training set{by_seed}"
        echo_table(["fold", *names, "held-out WAR %"], rows, title)
        for note in values_at_an_edge(run):
            echo(f"note: {note}")
    echo(f"training: {describe_training(run)}")


def describe_training(run: Run) -> str:
    """Return in words how far training had come: train accuracy, and whether the loss was still falling."""
    from ..stages.heads.convergence import loss_state

    accuracy, late = run.train_accuracy(), run.late_loss_decrease()
    if accuracy is None:
        return "none"
    text = f"accuracy {accuracy:.1%} on the training videos in the last epoch"
    if late is None:
        return text
    state = {"falling": "still falling", "flat": "no longer falling"}[loss_state(late)]
    return f"{text}, loss {state} ({late:.1%} of its decrease in the last tenth of the epochs)"


def format_interval(difference: Mapping[str, Any] | None) -> str:
    """Return the confidence interval of a difference (comparison.paired_differences) in points, as a table cell."""
    if difference is None:
        return ""
    return "—" if difference["low"] is None else f"{100 * difference['low']:+.1f} to {100 * difference['high']:+.1f}"


def describe_difference(difference: Mapping[str, Any], earlier: str, later: str) -> str:
    """Return the sentence on a difference, which claims what its interval shows."""
    from ..stages.heads.comparison import verdict
    from ..stages.heads.intervals import CONFIDENCE

    interval = "" if difference["low"] is None else f", {CONFIDENCE:.0%} interval {format_interval(difference)}"
    return f"{later} against {earlier}: {100 * difference['mean']:+.2f} points{interval}: {verdict(difference)}"


def _print_final(run: Run) -> None:
    metrics, seeds = run.metrics, run.metrics["seeds"]
    what = f"{run.train_config.head} on {run.config['dataset']}: final model, {seeds} seed{'s' * (seeds > 1)}"
    echo(f"{what}, trained on all n = {metrics['videos']} videos, tested on none")
    scores = {"WAR (accuracy)": "war", "UAR": "uar", "locating accuracy": "locating_accuracy"}
    rows = [
        (title, *format_mean_std(values))
        for title, key in scores.items()
        if (values := metrics[f"expected_{key}"]) is not None
    ]
    echo_table(["expected", "mean %", "std % (ddof 0)", "std % (ddof 1)", "n"], rows)
    echo(
        f"expected: measured by the cross-validation {run.config['final']['run']} ({run.describe_cv()}), not on this model, "
        "which saw more videos than each of its models"
    )
    _print_calibration(run)
    _print_training(run)
    if medians := run.config["final"]["tuned"]:
        chosen = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in medians.items())
        echo(f"tuned: {chosen}, the median of what the models of the cross-validation chose")
    for note in run.config.get("notes", ()):
        echo(f"note: {note}")
    echo(f"seed {', '.join(map(str, run.cv.seeds))}; {run.train_config.epochs} epochs; {run.config['command']}")


def describe_reachable(locating: dict[str, Any], num_videos: int) -> str:
    """Return the sentence that says which of the ``num_videos`` the locating accuracy counts, and which it leaves out."""
    unknown = num_videos - locating["videos"]
    return (
        f"located: over the {locating['reachable']} of {locating['videos']} videos with a known apex that a clip of the "
        "test view can hold" + (f"; left out: {unknown} videos without a known apex" if unknown else "")
    )


def format_mean_std(values: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return mean and both standard deviations in percent, and n, as table cells; an em dash for None."""

    def percent(value: float | None) -> str:
        return "—" if value is None else f"{100 * value:.2f}"

    return percent(values["mean"]), percent(values["std_ddof0"]), percent(values["std_ddof1"]), str(values["n"])


def _print_confusion(run: Run) -> None:
    counts = run.metrics["confusion"]
    no_face = any(row[-1] for row in counts)
    rows = []
    for label, row in zip(run.labels, counts, strict=True):
        recall = run.metrics["recall"][label]
        rows.append([label, *(row if no_face else row[:-1]), "—" if recall is None else f"{100 * recall:.1f}"])
    echo_table(["true \\ predicted", *run.labels, *(["no face"] if no_face else []), "recall %"], rows)


def print_notes(notes: Sequence[tuple[str, str]]) -> None:
    """Print (id, note) of videos that are ok but for something to be known, at most MAX_FAILURES."""
    for video_id, note in notes[:MAX_FAILURES]:
        echo(f"{video_id}: {note}")
    if len(notes) > MAX_FAILURES:
        echo(f"… and notes on {len(notes) - MAX_FAILURES} more videos; all of them with --json")


def print_failures(failed: Sequence[tuple[str, str, str]], num_videos: int) -> None:
    """Print (id, status, note) of failed videos, at most MAX_FAILURES, under a line that counts them all."""
    if not failed:
        return
    rows = failed[:MAX_FAILURES]
    echo_table(["video", "status", "reason"], rows, title=f"{len(failed)} of {num_videos} videos failed")
    if len(rows) < len(failed):
        echo(f"… and {len(failed) - len(rows)} more; all of them with --json")
