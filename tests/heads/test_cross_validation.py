"""Views, the kept epoch and the weights of labels: what a run does beyond training, and how it says so."""

import numpy as np
import pytest
import torch
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache.hdf5 import read_table
from ceflpipe.stages.heads.clip_sampling import draw_for_testing, view_starts
from ceflpipe.stages.heads.cross_validation import Protocol, train_heads
from ceflpipe.stages.heads.evaluate import evaluate
from ceflpipe.stages.heads.feature_bank import Data, gather, join
from ceflpipe.stages.heads.layers import Noise, initialise
from ceflpipe.stages.heads.losses import loss_per_video
from ceflpipe.stages.heads.registry import make_head
from ceflpipe.stages.heads.train import Model, Recipe, fit

RECIPE = Recipe("cefl", "auto", 3, 2, "clip", 6, 0, 10, 1e-3, 1e-4, 8, False, "fp32")


@pytest.fixture
def videos(tmp_path):
    manifest = fake_manifest(tmp_path)
    fake_cache(tmp_path / "x.h5", manifest)
    return manifest, read_table(tmp_path / "x.h5")


def test_views_are_the_mean_of_their_starts(videos):
    """The oracle draws each start by itself and averages the probabilities; the map stays the middle view's."""
    joined = join(*videos, torch.device("cpu"))
    head = make_head("cefl", 1, 512, 3)
    initialise(head, [torch.Generator().manual_seed(1)])
    chosen = torch.arange(5)[None]
    said = evaluate(head, joined.data, chosen, RECIPE, views=5)
    shares, maps = [], []
    for start in view_starts(3, 5):
        drawn = draw_for_testing(joined.data.length[chosen[0]], 3, 2, "clip", start)
        output = head(gather(joined.data, chosen, drawn[None]), Noise(None))
        shares.append(torch.softmax(output.logits, -1))
        maps.append(output.intensity)
    torch.testing.assert_close(said.probabilities, torch.stack(shares).mean(0))
    torch.testing.assert_close(said.intensity, maps[2])
    assert len(set(view_starts(3, 5))) == 5


def test_one_view_is_the_default_and_starts_in_the_middle(videos):
    joined = join(*videos, torch.device("cpu"))
    head = make_head("mean", 1, 512, 3)
    initialise(head, [torch.Generator().manual_seed(1)])
    chosen = torch.arange(4)[None]
    drawn = draw_for_testing(joined.data.length[chosen[0]], 7, 5, "clip", 15)
    recipe = Recipe("mean", "auto", 7, 5, "clip", 1, 0, 10, 1e-3, 0.0, 8, False, "fp32")
    expected = torch.softmax(head(gather(joined.data, chosen, drawn[None]), Noise(None)).logits, -1)
    torch.testing.assert_close(evaluate(head, joined.data, chosen, recipe).probabilities, expected)


def test_best_test_keeps_each_folds_best_epoch_and_says_that_it_is_optimistic(videos, tmp_path):
    manifest, table = videos
    last = train_heads(manifest, table, RECIPE, Protocol("subject", 3, (1,)), tmp_path / "last")
    best = train_heads(manifest, table, RECIPE, Protocol("subject", 3, (1,), select="best-test"), tmp_path / "best")
    assert (last.metrics["optimistic"], best.metrics["optimistic"]) == (False, True)
    history = best.history()
    kept = history.groupby("fold").test_war.max()
    by_fold = best.predictions().groupby("fold").right.mean()
    np.testing.assert_allclose(by_fold.to_numpy(float), kept.loc[by_fold.index].to_numpy(float), atol=1e-5)
    final = history[history.epoch == RECIPE.epochs].groupby("fold").test_war.max()
    by_fold = last.predictions().groupby("fold").right.mean()
    np.testing.assert_allclose(by_fold.to_numpy(float), final.loc[by_fold.index].to_numpy(float), atol=1e-5)


def test_class_weights_give_every_label_the_same_say():
    """The oracle: the loss before the first step is the mean over labels of their own mean losses. Videos stand still."""
    label = torch.tensor([0] * 9 + [1] * 3)
    data = Data(
        torch.rand(12, 16).half().repeat_interleave(30, 0), torch.arange(12) * 30, torch.full((12,), 30), label, 2
    )
    seen = {}
    for weighted in (False, True):
        recipe = Recipe("mean", "cross-entropy", 1, 15, "clip", 1, 0, 10, 1e-12, 0.0, 12, weighted, "fp32")

        def look(epoch, head, weighted=weighted):
            seen[weighted] = float(epoch.loss[0])

        head = fit(data, [Model(1, "1", torch.arange(12))], recipe, look)
    drawn = draw_for_testing(data.length, 1, 15, "clip", 0)
    output = head(gather(data, torch.arange(12)[None], drawn[None]), Noise(None))
    losses = loss_per_video("cross-entropy", output.logits.detach(), label[None])[0]
    assert seen[False] == pytest.approx(float(losses.mean()), abs=1e-5)
    assert seen[True] == pytest.approx(float((losses[:9].mean() + losses[9:].mean()) / 2), abs=1e-5)
    assert abs(seen[True] - seen[False]) > 1e-3


def test_folds_may_have_any_name(tmp_path):
    from dataclasses import replace

    manifest = fake_manifest(tmp_path)
    rows = tuple(replace(row, fold=f"take {i % 2}/a") for i, row in enumerate(manifest.rows))
    manifest = replace(manifest, rows=rows)
    fake_cache(tmp_path / "x.h5", manifest)
    recipe = Recipe("mean", "auto", 3, 2, "clip", 1, 0, 10, 1e-3, 1e-4, 8, False, "fp32")
    run = train_heads(manifest, read_table(tmp_path / "x.h5"), recipe, Protocol("official", 2, (1,)), tmp_path / "run")
    assert set(run.predictions().fold) == {"take 0/a", "take 1/a"}
    assert all(file.parent.name == "predictions" for file in (tmp_path / "run").glob("predictions/*"))
