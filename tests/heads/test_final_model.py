"""The final model of a run: the oracle trains one on all videos; its scores are quoted, and what has no score is refused."""

import json
from dataclasses import replace

import pytest
import torch
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.feature_bank import join_features
from ceflpipe.stages.heads.final_model import final_config
from ceflpipe.stages.heads.run_io import read_run, verify_run
from ceflpipe.stages.heads.sweep import RunSpec, reason_to_train
from ceflpipe.stages.heads.train import ModelSpec, train
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

CONFIG = TrainConfig(
    num_clips=3, frames_per_clip=2, epochs=3, warmup_epochs=0, learning_rate=0.001, precision="fp32", head="cefl"
)
CV = CVConfig(fold_scheme="subject", folds=3, seed=1, num_seeds=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("final")
    manifest = fake_manifest(home)
    fake_cache(home / "x.h5", manifest)
    return manifest, read_features(home / "x.h5")


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    return cross_validate(*data, CONFIG, CV, tmp_path_factory.mktemp("runs") / "cefl")


def train_final(data, reference, out, **options):
    return cross_validate(
        *data, final_config(reference), reference.cv.without_tuning(), out, final_of=reference, **options
    )


def test_each_seed_trains_on_every_video(data, reference, tmp_path):
    """The oracle trains each seed alone, on all videos, with the configuration of the run."""
    run = train_final(data, reference, tmp_path / "final")
    bank = join_features(*data, torch.device("cpu")).bank
    state = run.head().state_dict()
    for m, seed in enumerate(CV.seeds):
        alone = train(bank, [ModelSpec(seed, "all", torch.arange(18))], CONFIG).state_dict()
        for key, value in alone.items():
            torch.testing.assert_close(state[key][m], value[0], rtol=1e-3, atol=1e-4)
    assert [(model["seed"], model["fold"]) for model in run.config["models"]] == [(1, "all"), (2, "all")]
    assert sorted(run.config["train_only"]) == sorted(entry.id for entry in data[0].entries)
    assert verify_run(run.path)


def test_scores_are_those_of_the_cross_validation_and_marked_so(data, reference, tmp_path):
    run = read_run(train_final(data, reference, tmp_path / "final").path)
    assert run.is_final
    assert not reference.is_final
    assert run.metrics["expected_war"] == reference.metrics["war"]
    assert run.metrics["expected_locating_accuracy"] == reference.metrics["locating_accuracy"]["predicted_label"]
    assert not {"war", "uar", "confusion", "recall"} & set(run.metrics), "a score without a mark"
    assert run.history().filter(like="test_").isna().all(axis=None)
    assert run.describe_cv() == reference.describe_cv()
    card = run.card()
    assert "Expected, measured by the cross-validation `cefl`, not on this model." in card
    assert "model-index" not in card
    with pytest.raises(CeflError, match="no test predictions; give the cross-validated run cefl"):
        run.predictions()


def test_parts_of_it_that_train_apart_give_the_same(data, reference, tmp_path):
    whole = train_final(data, reference, tmp_path / "whole").head().state_dict()
    parts = train_final(data, reference, tmp_path / "parts", memory=1).head().state_dict()
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-3, atol=1e-4)


def other_list(manifest, table, home):
    return replace(manifest, entries=manifest.entries[3:]), table


def other_features(manifest, table, home):
    fake_cache(home / "other.h5", manifest, seed=1)
    return manifest, read_features(home / "other.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [(other_list, "trained and tested on another list of videos"), (other_features, "was trained on other features")],
)
def test_a_run_of_other_data_has_no_score_for_it(data, reference, tmp_path, change, message):
    with pytest.raises(CeflError, match=message):
        train_final(change(*data, tmp_path), reference, tmp_path / "final")
    assert not (tmp_path / "final").exists()


def test_a_run_of_other_code_has_no_score_for_it(data, reference, tmp_path):
    old = replace(reference, config={**reference.config, "code": "0" * 16})
    with pytest.raises(CeflError, match=r"was made by other code of the heads.*cross-validate again"):
        train_final(data, old, tmp_path / "final")


def test_a_run_that_was_selected_by_its_test_is_edited_or_is_final_is_refused(data, reference, tmp_path):
    best = cross_validate(*data, CONFIG, CV.model_copy(update={"checkpoint": "best-test"}), tmp_path / "best")
    with pytest.raises(CeflError, match="kept the epoch with the best test score"):
        train_final(data, best, tmp_path / "x")
    final = train_final(data, reference, tmp_path / "final")
    with pytest.raises(CeflError, match="is a final model itself"):
        train_final(data, final, tmp_path / "x")
    edited = cross_validate(*data, CONFIG, CV, tmp_path / "edited")
    metrics = json.loads((edited.path / "metrics.json").read_text()) | {"videos": 5}
    (edited.path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(CeflError, match="files of it have changed"):
        train_final(data, edited, tmp_path / "x")


def test_a_tuned_setting_has_the_median_of_what_was_chosen(data, tmp_path):
    """The lower one of an even number of models: every value was tried. Nothing is tuned again."""
    cv = CV.model_copy(update={"tune": ("learning_rate",), "tune_learning_rates": (0.001, 0.01, 0.1), "tune_folds": 2})
    tuned = cross_validate(*data, CONFIG, cv, tmp_path / "tuned")
    chosen = sorted(tuned.tuning()[tuned.tuning().is_chosen].learning_rate)
    assert len(chosen) == 6
    run = train_final(data, tuned, tmp_path / "final")
    assert run.train_config.learning_rate == chosen[2]
    assert run.config["final"]["tuned"] == {"learning_rate": chosen[2]}
    assert run.train_config.model_dump() == {**CONFIG.model_dump(), "learning_rate": chosen[2]}
    assert run.tuning().empty
    assert f"chose on held-out training videos: learning rate {chosen[2]:g}" in run.card()


def test_a_sweep_does_not_take_it_for_a_run_of_its_own(data, reference, tmp_path):
    manifest, table = data
    run = train_final(data, reference, tmp_path / "final")
    spec = RunSpec(manifest, tmp_path / "x.h5", CONFIG, CV, reference.path)
    assert reason_to_train(spec, table.features_sha256) == ""
    assert "final model" in reason_to_train(replace(spec, out=run.path), table.features_sha256)
