"""Cross-validation: test-time views, the kept epoch, class weights, fold names and the columns of a run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features, read_index, read_video
from ceflpipe.stages.heads.clip_sampling import map_start, sample_clips_test, view_starts
from ceflpipe.stages.heads.cross_validation import HISTORY_COLUMNS, cross_validate
from ceflpipe.stages.heads.evaluate import evaluate
from ceflpipe.stages.heads.feature_bank import FeatureBank, gather_frames, join_features
from ceflpipe.stages.heads.folds import make_folds
from ceflpipe.stages.heads.layers import BatchedDropout, init_weights
from ceflpipe.stages.heads.losses import loss_per_video
from ceflpipe.stages.heads.registry import HEADS, build_head
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.heads.train import ModelSpec, train
from ceflpipe.stages.heads.train_config import FOLD_SCHEMES, CVConfig, TrainConfig
from ceflpipe.stages.predict.inference import Predictor

CONFIG = TrainConfig(
    num_clips=3, frames_per_clip=2, epochs=6, warmup_epochs=0, cosine_t_max=10, learning_rate=0.001, precision="fp32"
)
CV = CVConfig(fold_scheme="subject", folds=3, seed=1)


def updated(config, **changes):
    return type(config)(**{**config.model_dump(), **changes})


@pytest.fixture
def data(tmp_path):
    manifest = fake_manifest(tmp_path)
    fake_cache(tmp_path / "x.h5", manifest)
    return manifest, read_features(tmp_path / "x.h5")


def initialized(name):
    head = build_head(name, 1, 512, 3)
    init_weights(head, [torch.Generator().manual_seed(1)])
    return head


@pytest.mark.parametrize(
    ("views", "test_view", "map_of"),
    [(5, "middle", 2), (1, "middle", 0), (2, "middle", 1), (4, "middle", 2), (2, "end", 1), (4, "end", 3)],
)
def test_views_are_the_mean_of_their_starts(data, views, test_view, map_of):
    """The oracle evaluates each start alone and averages the probabilities; the map, and with it the located clip and the
    times of its clips, is that of the middle view (the later one of an even number), or of the last."""
    config = CONFIG.model_copy(update={"test_view": test_view})
    bank = join_features(*data, torch.device("cpu")).bank
    head, videos = initialized("cefl"), torch.arange(5)[None]
    outputs = evaluate(head, bank, videos, config, tta_views=views)
    probabilities, maps = [], []
    starts = view_starts(3, views, test_view)
    for start in starts:
        frames = sample_clips_test(bank.length[videos[0]], 3, 2, "first", start)
        output = head(gather_frames(bank, videos, frames[None]), BatchedDropout(None))
        probabilities.append(torch.softmax(output.logits, -1))
        maps.append(output.intensity)
    torch.testing.assert_close(outputs.probabilities, torch.stack(probabilities).mean(0))
    torch.testing.assert_close(outputs.intensity, maps[map_of])
    assert map_start(config, views) == starts[map_of]
    assert sorted(set(starts)) == starts


def test_one_view_is_the_default_and_starts_in_the_middle(data):
    bank = join_features(*data, torch.device("cpu")).bank
    head, videos = initialized("mean"), torch.arange(4)[None]
    frames = sample_clips_test(bank.length[videos[0]], 7, 5, "first", 15)
    expected = torch.softmax(head(gather_frames(bank, videos, frames[None]), BatchedDropout(None)).logits, -1)
    config = TrainConfig(head="mean", num_clips=7, frames_per_clip=5, precision="fp32")
    torch.testing.assert_close(evaluate(head, bank, videos, config).probabilities, expected)


def test_best_test_keeps_the_best_epoch_of_each_fold_and_is_marked_optimistic(data, tmp_path):
    last = cross_validate(*data, CONFIG, CV, tmp_path / "last")
    best = cross_validate(*data, CONFIG, updated(CV, checkpoint="best-test"), tmp_path / "best")
    assert (last.metrics["optimistic"], best.metrics["optimistic"]) == (False, True)
    history = best.history()
    final = history[history.epoch == CONFIG.epochs]
    for run, epochs in ((best, history), (last, final)):
        expected = epochs.groupby("fold").test_war.max()
        by_fold = run.predictions().groupby("fold").correct.mean()
        np.testing.assert_allclose(by_fold.to_numpy(float), expected.loc[by_fold.index].to_numpy(float), atol=1e-5)


def test_class_weights_give_every_label_the_same_total_weight():
    """The oracle: the loss before the first step is the mean over labels of their mean losses. All frames of a video are
    equal."""
    label = torch.tensor([0] * 9 + [1] * 3)
    features = torch.rand(12, 16).half().repeat_interleave(30, 0)
    bank = FeatureBank(features, torch.arange(12) * 30, torch.full((12,), 30), label, 2)
    loss = {}
    for weighted in (False, True):
        config = TrainConfig(
            head="mean", loss="cross-entropy", num_clips=1, frames_per_clip=15, epochs=1, warmup_epochs=0,
            learning_rate=1e-12, weight_decay=0.0, batch_size=12, class_weights=weighted, precision="fp32",
        )  # fmt: skip
        stats = []
        head = train(bank, [ModelSpec(1, "1", torch.arange(12))], config, lambda s, head, stats=stats: stats.append(s))
        loss[weighted] = float(stats[0].loss[0])
    frames = sample_clips_test(bank.length, 1, 15, "first", 0)
    output = head(gather_frames(bank, torch.arange(12)[None], frames[None]), BatchedDropout(None))
    losses = loss_per_video("cross-entropy", output.logits.detach(), label[None])[0]
    assert loss[False] == pytest.approx(float(losses.mean()), abs=1e-5)
    assert loss[True] == pytest.approx(float((losses[:9].mean() + losses[9:].mean()) / 2), abs=1e-5)
    assert abs(loss[True] - loss[False]) > 1e-3


def test_folds_may_have_any_name(data, tmp_path):
    manifest, table = data
    entries = tuple(replace(entry, fold=f"take {i % 2}/a") for i, entry in enumerate(manifest.entries))
    config, cv = updated(CONFIG, head="mean", epochs=1), updated(CV, fold_scheme="official")
    run = cross_validate(replace(manifest, entries=entries), table, config, cv, tmp_path / "run")
    assert set(run.predictions().fold) == {"take 0/a", "take 1/a"}
    assert all(file.parent.name == "predictions" for file in (tmp_path / "run").glob("predictions/*"))


def test_every_fold_scheme_has_a_title(data):
    entries = [
        replace(entry, fold=str(i % 2), split=["train", "val"][i % 2]) for i, entry in enumerate(data[0].entries)
    ]
    for scheme in FOLD_SCHEMES:
        assert make_folds(entries, scheme, 2, 0)
        assert FOLD_SCHEMES[scheme] in CVConfig(fold_scheme=scheme).describe()
    assert set(FOLD_SCHEMES) == set(CVConfig.model_json_schema()["properties"]["fold_scheme"]["enum"])


@pytest.mark.parametrize(("scheme", "unused"), [("subject", []), ("split", [0])])
def test_a_run_knows_the_source_files_of_the_videos_it_was_made_of(data, tmp_path, scheme, unused):
    """Also of those that no fold tests; a video that is in no fold does not count."""
    manifest, table = data
    splits = ["", *["train", "val"] * len(manifest.entries)]
    entries = tuple(replace(entry, split=split) for entry, split in zip(manifest.entries, splits, strict=False))
    config = updated(CONFIG, head="mean", epochs=1)
    run = cross_validate(
        replace(manifest, entries=entries), table, config, updated(CV, fold_scheme=scheme), tmp_path / "run"
    )
    assert run.was_made_of(table.videos)
    changed = []
    for number in range(len(entries)):
        hashes = list(table.videos.source_sha256)
        hashes[table.index_of[entries[number].id]] = "changed"
        changed.append(not read_run(run.path).was_made_of(replace(table.videos, source_sha256=hashes)))
    assert [number for number, noticed in enumerate(changed) if not noticed] == unused


def test_a_run_folder_has_the_documented_columns_and_keys(data, tmp_path):
    manifest, table = data
    table.videos.status[1] = "no-face"
    run = cross_validate(manifest, table, updated(CONFIG, epochs=2), updated(CV, num_seeds=2), tmp_path / "run")
    config = json.loads((run.path / "run.json").read_text())
    assert (config["train"], config["cv"]) == (
        run.train_config.model_dump(mode="json"),
        run.cv.model_dump(mode="json"),
    )
    assert run.extraction_settings == table.settings
    assert (config["dim"], config["features"]["sha256"]) == (512, table.features_sha256)
    assert tuple(run.history().columns) == HISTORY_COLUMNS
    predictions = run.predictions()
    assert list(predictions.columns) == [
        *("id", "subject", "label", "status", "fold", "seed", "predicted", "correct"),
        *("p_anger", "p_fear", "p_sadness", "located_clip", "located_clip_true"),
        *("intensity_1", "intensity_2", "intensity_3", "apex_hit", "apex_hit_true", "apex_chance"),
    ]
    without = predictions[predictions.predicted == ""]
    assert set(without.id) == {manifest.entries[1].id}
    assert set(without.status) == {"no-face"}
    assert not without.correct.any()
    rest = predictions[predictions.predicted != ""]
    assert (rest.correct == (rest.predicted == rest.label)).all()
    assert (
        rest.located_clip == 1 + rest[["intensity_1", "intensity_2", "intensity_3"]].to_numpy().argmax(axis=1)
    ).all()
    assert read_run(run.path).metrics == run.metrics


def test_heads_without_an_intensity_map_locate_no_clip(data, tmp_path):
    run = cross_validate(*data, updated(CONFIG, head="mean", epochs=1), CV, tmp_path / "run")
    assert not [name for name in run.predictions().columns if name.startswith(("located", "intensity", "apex"))]
    assert run.metrics["locating_accuracy"] is None


@pytest.mark.parametrize("width", [64, 768])
@pytest.mark.parametrize("head", list(HEADS))
def test_every_head_trains_on_features_of_any_width_and_predicts_from_them(tmp_path, head, width):
    manifest = fake_manifest(tmp_path)
    fake_cache(tmp_path / "x.h5", manifest, width=width)
    table = read_features(tmp_path / "x.h5")
    config = updated(CONFIG, head=head, epochs=4)
    run = cross_validate(manifest, table, config, CV, tmp_path / "run")
    assert (run.config["dim"], run.extraction_settings.width, table.width) == (width, width, width)
    loss = run.history().groupby("epoch").train_loss.mean()
    assert loss[4] < loss[1]
    index = read_index(tmp_path / "x.h5")
    predicted = Predictor(read_run(tmp_path / "run"), "cpu")(Path("v.mp4"), read_video(tmp_path / "x.h5", index.id[0]))
    assert predicted.failure == ""
    assert sum(predicted.probabilities.values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("width", [1, 70])
def test_features_that_the_released_attention_cannot_divide_are_refused(width):
    with pytest.raises(CeflError, match=f"{width} is not a multiple of 4; use --head cefl"):
        build_head("released", 1, width, 3)


@pytest.mark.parametrize(
    ("changes", "init", "words"),
    [
        ({"epochs": 0}, None, "--epochs 0"),
        ({}, "x.pth", "head cefl; use --head released"),
        ({"head": "released"}, "x.pth", "no such file"),
        ({"head": "cefk"}, None, "did you mean cefl"),
        ({"num_clips": 11}, None, "115 of 105"),
    ],
)
def test_configurations_that_cannot_be_trained_are_refused(data, tmp_path, changes, init, words):
    with pytest.raises(CeflError, match=words):
        cross_validate(*data, updated(CONFIG, **changes), CV, tmp_path / "run", init=tmp_path / init if init else None)
    assert not (tmp_path / "run").exists()
