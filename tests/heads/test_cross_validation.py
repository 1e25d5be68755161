"""Views, the kept epoch and the weights of labels: what a run does beyond training, and how it says so."""

import numpy as np
import pytest
import torch
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.heads.clip_sampling import sample_clips_test, view_starts
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.evaluate import evaluate
from ceflpipe.stages.heads.feature_bank import FeatureBank, gather_frames, join_features
from ceflpipe.stages.heads.layers import BatchedDropout, init_weights
from ceflpipe.stages.heads.losses import loss_per_video
from ceflpipe.stages.heads.registry import build_head
from ceflpipe.stages.heads.train import ModelSpec, train
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

RECIPE = TrainConfig(
    head="cefl",
    num_clips=3,
    frames_per_clip=2,
    epochs=6,
    warmup_epochs=0,
    cosine_t_max=10,
    learning_rate=0.001,
    precision="fp32",
)


@pytest.fixture
def videos(tmp_path):
    manifest = fake_manifest(tmp_path)
    fake_cache(tmp_path / "x.h5", manifest)
    return manifest, read_features(tmp_path / "x.h5")


def test_views_are_the_mean_of_their_starts(videos):
    """The oracle draws each start by itself and averages the probabilities; the map stays the middle view's."""
    joined = join_features(*videos, torch.device("cpu"))
    head = build_head("cefl", 1, 512, 3)
    init_weights(head, [torch.Generator().manual_seed(1)])
    chosen = torch.arange(5)[None]
    said = evaluate(head, joined.data, chosen, RECIPE, tta_views=5)
    shares, maps = [], []
    for start in view_starts(3, 5):
        drawn = sample_clips_test(joined.data.length[chosen[0]], 3, 2, "clip", start)
        output = head(gather_frames(joined.data, chosen, drawn[None]), BatchedDropout(None))
        shares.append(torch.softmax(output.logits, -1))
        maps.append(output.intensity)
    torch.testing.assert_close(said.probabilities, torch.stack(shares).mean(0))
    torch.testing.assert_close(said.intensity, maps[2])
    assert len(set(view_starts(3, 5))) == 5


def test_one_view_is_the_default_and_starts_in_the_middle(videos):
    joined = join_features(*videos, torch.device("cpu"))
    head = build_head("mean", 1, 512, 3)
    init_weights(head, [torch.Generator().manual_seed(1)])
    chosen = torch.arange(4)[None]
    drawn = sample_clips_test(joined.data.length[chosen[0]], 7, 5, "clip", 15)
    recipe = TrainConfig(
        head="mean",
        num_clips=7,
        frames_per_clip=5,
        epochs=1,
        warmup_epochs=0,
        cosine_t_max=10,
        learning_rate=0.001,
        weight_decay=0.0,
        precision="fp32",
    )
    expected = torch.softmax(head(gather_frames(joined.data, chosen, drawn[None]), BatchedDropout(None)).logits, -1)
    torch.testing.assert_close(evaluate(head, joined.data, chosen, recipe).probabilities, expected)


def test_best_test_keeps_each_folds_best_epoch_and_says_that_it_is_optimistic(videos, tmp_path):
    manifest, table = videos
    last = cross_validate(manifest, table, RECIPE, CVConfig(fold_scheme="subject", folds=3, seed=1), tmp_path / "last")
    best = cross_validate(
        manifest,
        table,
        RECIPE,
        CVConfig(fold_scheme="subject", folds=3, seed=1, checkpoint="best-test"),
        tmp_path / "best",
    )
    assert (last.metrics["optimistic"], best.metrics["optimistic"]) == (False, True)
    history = best.history()
    kept = history.groupby("fold").test_war.max()
    by_fold = best.predictions().groupby("fold").correct.mean()
    np.testing.assert_allclose(by_fold.to_numpy(float), kept.loc[by_fold.index].to_numpy(float), atol=1e-5)
    final = history[history.epoch == RECIPE.epochs].groupby("fold").test_war.max()
    by_fold = last.predictions().groupby("fold").correct.mean()
    np.testing.assert_allclose(by_fold.to_numpy(float), final.loc[by_fold.index].to_numpy(float), atol=1e-5)


def test_class_weights_give_every_label_the_same_say():
    """The oracle: the loss before the first step is the mean over labels of their own mean losses. Videos stand still."""
    label = torch.tensor([0] * 9 + [1] * 3)
    data = FeatureBank(
        torch.rand(12, 16).half().repeat_interleave(30, 0), torch.arange(12) * 30, torch.full((12,), 30), label, 2
    )
    seen = {}
    for weighted in (False, True):
        recipe = TrainConfig(
            head="mean",
            loss="cross-entropy",
            num_clips=1,
            frames_per_clip=15,
            epochs=1,
            warmup_epochs=0,
            cosine_t_max=10,
            learning_rate=1e-12,
            weight_decay=0.0,
            batch_size=12,
            class_weights=weighted,
            precision="fp32",
        )

        def look(epoch, head, weighted=weighted):
            seen[weighted] = float(epoch.loss[0])

        head = train(data, [ModelSpec(1, "1", torch.arange(12))], recipe, look)
    drawn = sample_clips_test(data.length, 1, 15, "clip", 0)
    output = head(gather_frames(data, torch.arange(12)[None], drawn[None]), BatchedDropout(None))
    losses = loss_per_video("cross-entropy", output.logits.detach(), label[None])[0]
    assert seen[False] == pytest.approx(float(losses.mean()), abs=1e-5)
    assert seen[True] == pytest.approx(float((losses[:9].mean() + losses[9:].mean()) / 2), abs=1e-5)
    assert abs(seen[True] - seen[False]) > 1e-3


def test_folds_may_have_any_name(tmp_path):
    from dataclasses import replace

    manifest = fake_manifest(tmp_path)
    rows = tuple(replace(row, fold=f"take {i % 2}/a") for i, row in enumerate(manifest.entries))
    manifest = replace(manifest, rows=rows)
    fake_cache(tmp_path / "x.h5", manifest)
    recipe = TrainConfig(
        head="mean",
        num_clips=3,
        frames_per_clip=2,
        epochs=1,
        warmup_epochs=0,
        cosine_t_max=10,
        learning_rate=0.001,
        precision="fp32",
    )
    run = cross_validate(
        manifest,
        read_features(tmp_path / "x.h5"),
        recipe,
        CVConfig(fold_scheme="official", folds=2, seed=1),
        tmp_path / "run",
    )
    assert set(run.predictions().fold) == {"take 0/a", "take 1/a"}
    assert all(file.parent.name == "predictions" for file in (tmp_path / "run").glob("predictions/*"))
