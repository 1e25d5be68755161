"""Charts drawn from plain arrays."""

import numpy as np
from matplotlib.collections import QuadMesh

from ceflpipe.stages.plots.charts import confusion_figure


def test_confusion_cells_are_percent_of_the_row_and_counts():
    counts = np.array([[3, 1, 0], [0, 5, 5]])
    axes = confusion_figure(counts, ["a", "b"], "x").axes[0]
    (mesh,) = [c for c in axes.collections if isinstance(c, QuadMesh)]
    np.testing.assert_allclose(mesh.get_array().reshape(2, 3), [[75, 25, 0], [0, 50, 50]])
    cells = {(round(t.get_position()[0] - 0.5), round(t.get_position()[1] - 0.5)): t.get_text() for t in axes.texts}
    assert cells == {(0, 0): "75 %\n3", (1, 0): "25 %\n1", (1, 1): "50 %\n5", (2, 1): "50 %\n5"}
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b", "no face"]
    assert len(confusion_figure(np.array([[3, 1, 0], [0, 5, 0]]), ["a", "b"], "x").axes[0].get_xticks()) == 2
