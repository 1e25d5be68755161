"""Convergence of a training: how much of the whole decrease of its loss came at the end."""

from __future__ import annotations

import pandas as pd

STILL_FALLING = 0.01
"""Share (0..1) of the whole decrease of the loss in the last tenth of the epochs, above which it was still falling in the end.
A loss that falls evenly has 0.1. Relative to the loss itself, one that has settled near zero would count as falling."""


def late_loss_decrease(history: pd.DataFrame) -> float | None:
    """Return the share of the decrease of the training loss that came in the last tenth of the epochs; None for fewer than three.

    ``history``: rows of a run's history.csv. Of several models the decreases are added up, each over its own epochs: from the
    mean of the tenth before the last tenth to the mean of the last tenth, and from the first epoch to the latter. Zero if
    the loss has not decreased at all.
    """
    late = whole = 0.0
    count = 0
    for _, model in history.groupby(["seed", "fold"]):
        losses = model.sort_values("epoch").train_loss.to_numpy()
        tenth = max(1, round(len(losses) / 10))
        if len(losses) < 3:
            continue
        end = losses[-tenth:].mean()
        late += losses[-2 * tenth : -tenth].mean() - end
        whole += losses[0] - end
        count += 1
    if not count:
        return None
    return float(late / whole) if whole > 0 else 0.0
