"""How is a run's result said at the terminal?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .console import show, show_table

if TYPE_CHECKING:
    from ..stages.heads.runfolder import Run

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
