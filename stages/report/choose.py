"""Which videos are worth a film strip? A rule, so that nobody picks the pretty ones by hand."""

from __future__ import annotations

import pandas as pd

from ..heads.runfolder import Run

RULE = (
    "Chosen by rule, not by eye, among the test videos of the first seed: of each label the right prediction with the "
    "sharpest map, and the wrong prediction that was surest of itself."
)


def has_maps(run: Run) -> bool:
    """Tell whether the run's head says where it looks."""
    return "located" in run.predictions()


def choose_videos(run: Run, labels: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Return lines of the run's predictions, by label in order and the right one first; empty where there are no maps.

    A label that is never (or always) recognised gives one line, or none. Ties go to the first id.
    """
    table = run.predictions()
    if "located" not in table:
        return table.iloc[:0]
    judged = table[(table.seed == table.seed.iloc[0]) & (table.predicted != "")].sort_values("id", kind="stable")
    maps = [column for column in judged if column.startswith("a_")]
    sharpness = judged[maps].max(axis=1)
    sureness = judged[[f"p_{label}" for label in run.labels]].max(axis=1)
    chosen = []
    for label in labels or run.labels:
        of_label = judged.label == label
        for kind, measure in ((judged.right, sharpness), (~judged.right, sureness)):
            candidates = measure[of_label & kind]
            if len(candidates):
                chosen.append(candidates.idxmax())
    return judged.loc[chosen]
