"""Convergence: the share of the decrease of the loss that came in the last tenth of the epochs."""

import numpy as np
import pandas as pd
import pytest

from ceflpipe.stages.heads.convergence import STILL_FALLING, late_loss_decrease


def history(*curves):
    return pd.concat(
        pd.DataFrame({"seed": 1, "fold": str(fold), "epoch": np.arange(1, len(losses) + 1), "train_loss": losses})
        for fold, losses in enumerate(curves)
    )


def test_a_loss_that_falls_evenly_has_a_tenth_and_one_that_has_flat_has_nothing():
    even, flat = np.linspace(2, 1, 121), np.r_[np.linspace(2, 1, 60), np.ones(60)]
    assert late_loss_decrease(history(even)) == pytest.approx(0.1, rel=0.06)
    assert late_loss_decrease(history(flat)) == 0
    assert late_loss_decrease(history(np.linspace(1, 2, 50))) == 0, "a loss that grows does not fall"


@pytest.mark.parametrize(("speed", "is_falling"), [(30, True), (15, False)])
def test_an_exponential_decay_falls_by_its_time_constant(speed, is_falling):
    """The oracle integrates exp(-t / speed) over 100 epochs: the decrease between two tenths, over that since the beginning."""
    losses = np.exp(-np.arange(100) / speed)
    late = losses[80:90].mean() - losses[90:].mean()
    expected = late / (1 - losses[90:].mean())
    assert late_loss_decrease(history(5 * losses)) == pytest.approx(expected)
    assert (expected > STILL_FALLING) == is_falling


def test_models_count_by_their_decrease_each_over_its_own_epochs():
    """A model that has learned nothing has no say; the order of rows has none either."""
    long, short = np.linspace(4, 2, 40), np.linspace(3, 2, 20)
    parts = [
        (long[32:36].mean() - long[36:].mean(), 4 - long[36:].mean()),
        (short[16:18].mean() - short[18:].mean(), 3 - short[18:].mean()),
    ]
    expected = sum(late for late, _ in parts) / sum(whole for _, whole in parts)
    rows = history(long, short, np.full(30, 2.0))
    assert late_loss_decrease(rows) == pytest.approx(expected)
    assert late_loss_decrease(rows.sample(frac=1, random_state=0)) == pytest.approx(expected)


def test_fewer_than_three_epochs_say_nothing():
    assert late_loss_decrease(history([2.0, 1.0])) is None
    assert late_loss_decrease(history([2.0, 1.0]).iloc[:0]) is None
    assert late_loss_decrease(history([3.0, 2.0, 1.0])) == pytest.approx(0.5)
