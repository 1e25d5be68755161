"""Convergence of a training: how much of the whole decrease of its loss came at the end."""

from __future__ import annotations

import pandas as pd

STILL_FALLING = 0.01
"""Share (0..1) of the whole decrease of the loss in the last tenth of the epochs, above which it was still falling in the end.
A loss that falls evenly has 0.1. Relative to the loss itself, one that is flat near zero would count as falling."""
TRAINED_ACCURACY = 0.9
"""Accuracy (0..1) on the training videos in the last epoch, below which a head counts as under-trained."""


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


def loss_state(late: float | None) -> str:
    """Return 'falling' or 'flat' for a share of late_loss_decrease, a dash for None and NaN."""
    if late is None or late != late:
        return "—"
    return "falling" if late > STILL_FALLING else "flat"


def describe_shortfall(train_accuracy: float | None, late: float | None) -> str:
    """Return in words how a training fell short: of TRAINED_ACCURACY, or with a loss still falling; '' if it did not.

    ``late``: see late_loss_decrease.
    """
    parts = []
    if train_accuracy is not None and train_accuracy < TRAINED_ACCURACY:
        parts.append(f"ends under-trained: {train_accuracy:.1%} of its own training videos are right")
    if late is not None and loss_state(late) == "falling":
        begin = "its" if parts else "ends with its"
        parts.append(f"{begin} loss still falling: {late:.1%} of the decrease came in the last tenth of the epochs")
    return ", ".join(parts)
