"""Tuning: chosen inside the training folds only, the same batched as one candidate after the other, by the stated rule."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline.training import run_sweep
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.evaluate import evaluate
from ceflpipe.stages.heads.feature_bank import join_features
from ceflpipe.stages.heads.folds import inner_folds, make_folds
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.sweep import RunSpec, expand_grid
from ceflpipe.stages.heads.train import ModelSpec, train
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from ceflpipe.stages.heads.tuning import SMOOTHED_EPOCHS, TUNING_COLUMNS, choose

CONFIG = TrainConfig(
    head="mean", num_clips=3, frames_per_clip=2, epochs=7, warmup_epochs=1, cosine_t_max=10, learning_rate=0.002,
    precision="fp32",
)  # fmt: skip
CV = CVConfig(
    fold_scheme="official", seed=1, num_seeds=2, tune=("learning_rate", "weight_decay", "epochs"), tune_splits=2, tune_folds=3,
    tune_learning_rates=(0.0005, 0.01), tune_weight_decays=(0.0, 0.01),
)  # fmt: skip


def updated(config, **changes):
    return type(config)(**{**config.model_dump(), **changes})


@pytest.fixture
def data(tmp_path):
    """Three official folds of two subjects each."""
    manifest = fake_manifest(tmp_path)
    entries = tuple(replace(entry, fold=str(int(entry.subject[1:]) % 3)) for entry in manifest.entries)
    fake_cache(tmp_path / "x.h5", manifest)
    return replace(manifest, entries=entries), read_features(tmp_path / "x.h5")


def best_of_plain_loop(data, train_entries, seed, fold, config, cv):
    """Train every candidate alone, on each split, and choose: (rate, decay, epochs) and the score of each candidate."""
    dataset = join_features(*data, torch.device("cpu"))
    results = []
    for rate in cv.tune_learning_rates:
        for decay in cv.tune_weight_decays:
            own = updated(config, learning_rate=rate, weight_decay=decay)
            correct, losses, videos = np.zeros(config.epochs), np.zeros(config.epochs), 0
            for inner in inner_folds(dataset.entries, train_entries, cv, seed):
                held_out = dataset.indices_of(inner.test, fold)
                videos += len(held_out)
                labels, outputs = dataset.bank.label[held_out], []

                def test(stats, head, held_out=held_out, own=own, outputs=outputs):
                    outputs.append(evaluate(head.eval(), dataset.bank, held_out[None], own).probabilities[0])
                    head.train()

                train(dataset.bank, [ModelSpec(seed, fold, dataset.indices_of(inner.train, fold))], own, test)
                for epoch, probabilities in enumerate(outputs):
                    correct[epoch] += int((probabilities.argmax(-1) == labels).sum())
                    losses[epoch] -= sum(math.log(p[label]) for p, label in zip(probabilities, labels, strict=True))
            for epochs in range(SMOOTHED_EPOCHS, config.epochs + 1):
                window = slice(epochs - SMOOTHED_EPOCHS, epochs)
                results.append((-correct[window].mean() / videos, losses[window].mean() / videos, epochs, rate, decay))
    return min(results)


def test_batched_tuning_is_a_plain_loop_that_trains_each_candidate_alone(data, tmp_path):
    cv = updated(CV, num_seeds=1)
    run = cross_validate(*data, CONFIG, cv, tmp_path / "run")
    chosen = run.tuning()[run.tuning().is_chosen].set_index("fold")
    folds = make_folds(data[0].entries, "official", 0, 1)
    assert len(chosen) == len(folds) == 3
    for fold, model in zip(folds, run.config["models"], strict=True):
        score, loss, epochs, rate, decay = best_of_plain_loop(data, fold.train, 1, fold.name, CONFIG, cv)
        assert model == {
            "seed": 1, "fold": fold.name, "learning_rate": rate, "weight_decay": decay, "epochs": epochs,
        }  # fmt: skip
        row = chosen.loc[fold.name]
        assert (row.learning_rate, row.weight_decay, row.epochs) == (rate, decay, epochs)
        assert (row.held_out_war, row.held_out_loss) == pytest.approx((-score, loss), abs=1e-4)


def test_a_fold_trains_with_what_was_chosen_for_it(data, tmp_path):
    """The oracle: a run of every fold with its values as the configuration of all."""
    cv = updated(CV, num_seeds=1)
    run = cross_validate(*data, CONFIG, cv, tmp_path / "run")
    history, predictions = run.history(), run.predictions()
    assert len({tuple(model.values())[2:] for model in run.config["models"]}) > 1, "folds differ, or nothing is tested"
    for m, model in enumerate(run.config["models"]):
        values = {name: model[name] for name in ("learning_rate", "weight_decay", "epochs")}
        alone = cross_validate(*data, updated(CONFIG, **values), updated(cv, tune=()), tmp_path / f"{m}")
        for table, expected in ((history, alone.history()), (predictions, alone.predictions())):
            own, other = (each[each.fold == model["fold"]].reset_index(drop=True) for each in (table, expected))
            pd.testing.assert_frame_equal(own, other, rtol=1e-3, atol=1e-5)
        for result, other in zip(run.head().parameters(), alone.head().parameters(), strict=True):
            torch.testing.assert_close(result[m], other[m], rtol=1e-3, atol=1e-4)
        assert history[history.fold == model["fold"]].epoch.max() == model["epochs"]


def test_tuning_never_sees_a_test_video(data, tmp_path):
    """Other labels and features of the videos that fold 0 tests change nothing for its models, and much for the other folds,
    which train on them."""
    manifest, table = data
    run = cross_validate(manifest, table, CONFIG, CV, tmp_path / "run")
    tested = [i for i, entry in enumerate(manifest.entries) if entry.fold == "0"]
    entries, labels = list(manifest.entries), manifest.labels
    for i in tested:
        entries[i] = replace(entries[i], label=labels[(labels.index(entries[i].label) + 1) % 3])
        table[entries[i].id][:] = np.random.default_rng(i).random(table[entries[i].id].shape)
    other = cross_validate(replace(manifest, entries=tuple(entries)), table, CONFIG, CV, tmp_path / "other")
    same, differs = (
        [each.tuning()[lambda t, f=f: (t.fold == "0") == f] for each in (run, other)] for f in (True, False)
    )
    assert len(same[0]) == 2 * 4
    pd.testing.assert_frame_equal(*same)
    assert not differs[0].held_out_loss.equals(differs[1].held_out_loss)
    models = [[model for model in each.config["models"] if model["fold"] == "0"] for each in (run, other)]
    assert models[0] == models[1]


def test_candidates_hold_out_training_videos_only(data):
    """Subjects stay apart; the parts depend on the seed and on nothing but the training videos."""
    entries = data[0].entries
    for fold in make_folds(entries, "official", 0, 1):
        splits = inner_folds(entries, fold.train, CV, 5)
        assert len(splits) == CV.tune_splits
        for inner in splits:
            assert sorted([*inner.train, *inner.test]) == sorted(fold.train)
            subjects = [{entries[i].subject for i in part} for part in (inner.train, inner.test, fold.test)]
            assert not subjects[0] & subjects[1]
            assert not (subjects[0] | subjects[1]) & subjects[2]
    again = [inner_folds(entries, fold.train, CV, seed)[0].test.tolist() for seed in (5, 5, 6, 7, 8)]
    assert again[0] == again[1]
    assert any(each != again[0] for each in again)


@pytest.mark.parametrize(("scheme", "without"), [("stratified", ""), ("official", "S1"), ("split", "S1")])
def test_without_subjects_the_held_out_videos_have_every_label_alike(data, scheme, without):
    entries = [replace(entry, subject="" if entry.subject == without else entry.subject) for entry in data[0].entries]
    (inner,) = inner_folds(entries, np.arange(len(entries)), updated(CV, fold_scheme=scheme, tune_splits=1), 1)
    counts = pd.Series([entries[i].label for i in inner.test]).value_counts()
    assert set(counts) == {len(entries) // 9}


def test_training_videos_that_cannot_be_divided_are_refused(data, tmp_path):
    entries = [replace(entry, subject="S0") for entry in data[0].entries]
    with pytest.raises(
        CeflError, match=r"--tune: the 18 training videos of a fold cannot be divided, they have 1 subject;"
    ):
        inner_folds(entries, np.arange(18), CV, 1)
    with pytest.raises(CeflError, match="no two videos of one label"):
        inner_folds(data[0].entries, np.arange(3), updated(CV, fold_scheme="stratified"), 1)
    with pytest.raises(CeflError, match="--tune: with 0 epochs there is nothing to choose from"):
        cross_validate(*data, updated(CONFIG, epochs=0), CV, tmp_path / "run")
    assert len(inner_folds(data[0].entries, np.arange(6), updated(CV, tune_folds=9, tune_splits=9), 1)) == 2


def curve(candidate, correct, loss=1.0):
    losses = loss if isinstance(loss, list) else [loss] * len(correct)
    return [
        {"seed": 1, "fold": "1", "candidate": candidate, "epoch": e, "videos": 10, "correct": c, "loss": x}
        for e, (c, x) in enumerate(zip(correct, losses, strict=True), start=1)
    ]


@pytest.mark.parametrize(
    ("curves", "epochs_are_tuned", "chosen"),
    [
        ([curve(0, [9] * 6), curve(1, [8] * 6)], True, (0, 5)),  # the highest score, of equal epochs the fewest
        ([curve(0, [0, 0, 0, 0, 0, 10]), curve(1, [3] * 6)], True, (1, 5)),  # one lucky epoch does not win
        ([curve(0, [9, 9, 9, 9, 9, 0]), curve(1, [8] * 6)], False, (1, 6)),  # only the last epoch counts
        ([curve(0, [9, 9, 9, 9, 9, 0]), curve(1, [8] * 6)], True, (0, 5)),
        ([curve(0, [8] * 6, 2.0), curve(1, [8] * 6, 1.9)], True, (1, 5)),  # of equal scores the lower loss
        ([curve(0, [8] * 6, [3.0] * 5 + [2.0]), curve(1, [8] * 6, 3.0)], True, (0, 6)),
        ([curve(0, [8] * 6), curve(1, [8] * 6)], True, (0, 5)),  # else the first of the grid
        ([curve(0, [4] * 6), curve(1, [9] * 6) + curve(1, [0] * 6)], True, (1, 5)),  # splits together
        ([curve(0, [5] * 6), curve(1, [9] * 6) + curve(1, [0] * 6)], True, (0, 5)),
        ([curve(0, [1, 2]), curve(1, [2, 1])], True, (0, 2)),  # fewer epochs than are smoothed
    ],
)  # fmt: skip
def test_the_rule_by_hand(curves, epochs_are_tuned, chosen):
    table = pd.DataFrame([row for rows in curves for row in rows])
    cv = CVConfig(
        tune=("learning_rate", "epochs") if epochs_are_tuned else ("learning_rate",), tune_learning_rates=(0.1, 0.2)
    )
    result = choose(table, CONFIG, cv)
    assert tuple(result.columns) == TUNING_COLUMNS
    (row,) = result[result.is_chosen].itertuples()
    assert ((0.1, 0.2).index(row.learning_rate), row.epochs, row.weight_decay) == (*chosen, CONFIG.weight_decay)


def test_a_candidate_that_diverges_is_not_chosen_and_disturbs_no_other(data, tmp_path):
    cv = updated(CV, tune=("learning_rate",), tune_learning_rates=(0.002, 1e38), num_seeds=1)
    run = cross_validate(*data, CONFIG, cv, tmp_path / "run")
    tuning = run.tuning()
    assert np.isinf(tuning[tuning.learning_rate == 1e38].held_out_loss).all()
    assert not tuning[tuning.learning_rate == 1e38].is_chosen.any()
    alone = cross_validate(*data, CONFIG, updated(cv, tune_learning_rates=(0.002,)), tmp_path / "alone")
    first = tuning[tuning.learning_rate == 0.002].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, alone.tuning(), rtol=1e-4)


def test_tuning_is_part_of_a_run_and_of_what_a_sweep_compares(data, tmp_path):
    base = RunSpec(data[0], tmp_path / "x.h5", updated(CONFIG, epochs=2), updated(CV, num_seeds=1), tmp_path / "out")
    (spec,) = expand_grid(base, tmp_path / "runs")
    plans = []
    for cv in (base.cv, base.cv, updated(base.cv, tune_learning_rates=(0.001, 0.01)), updated(base.cv, tune=())):
        (run,) = run_sweep([replace(spec, cv=cv)], workers=1, on_plan=lambda *plan: plans.append(plan))
        assert read_run(run.path).cv == cv
        assert run.tuning().empty == (not cv.tune)
    assert plans == [(0, {"new": 1}), (1, {}), *[(0, {"made with other settings (cv)": 1})] * 2]
    assert {(model["learning_rate"], model["epochs"]) for model in run.settings_by_model()} == {(0.002, 2)}
