"""Encoders adapted to folds: they learn, a kill changes nothing, permuted labels give chance, and no test is seen."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import fake_crops
from helpers.fake_crops import CROP_SETTINGS, LABELS, SIZE, crops_manifest, write_base, write_crops

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import fold_cache, read_crops, read_features, read_index
from ceflpipe.pipeline.adaptation import split_training
from ceflpipe.pipeline.training import read_fold_encoder
from ceflpipe.stages.encoder import adapt as adapt_module
from ceflpipe.stages.encoder.adapt import Adaptation, FoldTrainer, adapt_encoders, sample_evenly
from ceflpipe.stages.encoder.encoder_config import AdaptConfig
from ceflpipe.stages.encoder.weights import (
    load_classifier,
    load_encoder,
    read_encoder_metadata,
    resnet18_backbone,
    write_encoder,
)
from ceflpipe.stages.extract.encode_crops import encode_crops
from ceflpipe.stages.extract.extract_config import ExtractConfig
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.folds import make_folds
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

pytestmark = pytest.mark.slow

CONFIG = AdaptConfig(
    epochs=6, stopping_epochs=6, frames_per_video=4, frames_per_step=2, variants=1, batch_size=6, learning_rate=3e-5
)
CV = CVConfig(folds=2)
HEAD = TrainConfig(
    head="mean", num_clips=3, frames_per_clip=2, epochs=10, warmup_epochs=1, learning_rate=1e-2, precision="fp32"
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums of one thread have one order; fp32 on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


def adaptation_of(folder, base, manifest, cv=CV, config=CONFIG):
    folds = make_folds(manifest.entries, cv.fold_scheme, cv.folds, cv.seed)
    parts = tuple(split_training(manifest.entries, fold, config) for fold in folds)
    return Adaptation(manifest, "m" * 64, write_crops(folder / "crops.h5", manifest), base, parts, "cpu")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, base, one_thread):
    """Encoders of two folds, and the features of each."""
    folder = tmp_path_factory.mktemp("adapted")
    manifest = crops_manifest(folder)
    adaptation = adaptation_of(folder, base, manifest)
    outcomes = adapt_encoders(adaptation, CONFIG, folder / "weights")
    for outcome in outcomes:
        write_features(folder, adaptation, outcome.path, outcome.fold)
    return folder, adaptation, outcomes


def write_features(folder, adaptation, encoder, fold):
    config = ExtractConfig(encoder=encoder, backend="torch", precision="fp32", device="cpu", crop_size=SIZE)
    metadata = read_encoder_metadata(encoder)
    settings = replace(
        CROP_SETTINGS, encoder=metadata.name, encoder_sha256=metadata.sha256, normalization=metadata.normalization,
        precision="fp32", backend="torch", width=512,
    )  # fmt: skip
    encode_crops(adaptation.manifest, adaptation.crops, config, settings, fold_cache(folder / "features", fold))


def records_of(folder):
    return [read_fold_encoder(file) for file in sorted((folder / "weights").glob("*.safetensors"))]


def train(folder, manifest, out, records=None):
    table = read_features(folder / "features")
    return cross_validate(
        manifest, table, HEAD, CV, out, fold_encoders=records_of(folder) if records is None else records
    )


def test_frozen_layers_stay_and_the_last_block_learns(adapted, base):
    before = load_encoder(base).state_dict()
    for outcome in adapted[2]:
        after = load_encoder(outcome.path).state_dict()
        changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
        assert changed == {"layer4"}
        assert not [key for key in before if "running" in key and not torch.equal(before[key], after[key])]
        assert outcome.best_epoch > 0
        assert outcome.losses[outcome.best_epoch] == min(outcome.losses) < outcome.losses[0]


def test_the_file_says_what_it_saw_and_how_it_learned(adapted):
    folder, adaptation, outcomes = adapted
    hashes = dict(zip((index := read_index(adaptation.crops)).id, index.source_sha256, strict=True))
    entries = adaptation.manifest.entries
    for fold, outcome in zip(adaptation.folds, outcomes, strict=True):
        record, metadata = read_fold_encoder(outcome.path), read_encoder_metadata(outcome.path).metadata
        used = [entries[i] for i in (*fold.train, *fold.validation)]
        assert set(record.train_sources) == {hashes[entry.id] for entry in used}
        assert set(record.train_subjects) == {entry.subject for entry in used}
        assert set(record.test_subjects) == {entries[i].subject for i in fold.test}
        assert not set(record.train_subjects) & set(record.test_subjects)
        assert not {entries[i].subject for i in fold.train} & {entries[i].subject for i in fold.validation}
        assert record.sha256 == sha256_of(outcome.path)
        assert metadata["base"] == "base"
        assert metadata["license"].startswith("MIT")
        assert len(json.loads(metadata["validation_loss"])) == outcome.epochs + 1
    assert set(json.loads((folder / "weights/timing.json").read_text())) == {"1", "2"}


def test_the_classifier_in_the_file_is_that_of_the_validation_score(adapted):
    """By a loop: mean of the features of the sampled crops, then the linear layer."""
    _, adaptation, outcomes = adapted
    index, mean, std = read_index(adaptation.crops), np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for fold, outcome in zip(adaptation.folds, outcomes, strict=True):
        network, (weight, bias), correct = load_encoder(outcome.path), load_classifier(outcome.path), 0
        for i in fold.validation:
            crops = read_crops(adaptation.crops, index, i, sample_evenly(int(index.length[i]), CONFIG.frames_per_video))
            pixels = torch.from_numpy(((crops / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
            logits = weight @ network(pixels).mean(dim=0).numpy() + bias
            correct += LABELS[logits.argmax()] == adaptation.manifest.entries[i].label
        assert correct / len(fold.validation) == pytest.approx(outcome.best_accuracy)


def test_finished_encoders_are_kept_and_other_settings_named(adapted):
    folder, adaptation, outcomes = adapted
    before = [outcome.path.stat().st_mtime_ns for outcome in outcomes]
    again = adapt_encoders(adaptation, CONFIG, folder / "weights")
    assert [outcome.path.stat().st_mtime_ns for outcome in again] == before
    assert all(outcome.cached for outcome in again)
    other = CONFIG.model_copy(update={"epochs": 5})
    with pytest.raises(CeflError, match=r"was made with another epochs 6, now 5; make all folds again with --force"):
        adapt_encoders(adaptation, other, folder / "weights")


@pytest.mark.parametrize("layers", ["last", "all"])
def test_a_kill_in_any_epoch_gives_the_same_file(tmp_path, base, layers, monkeypatch):
    config = CONFIG.model_copy(update={"layers": layers, "checkpoint_minutes": 0.0, "epochs": 3, "variants": 2})
    manifest = crops_manifest(tmp_path, subjects=4)
    adaptation = adaptation_of(tmp_path, base, manifest, config=config)
    adaptation = replace(adaptation, folds=adaptation.folds[:1])
    (whole,) = adapt_encoders(adaptation, config, tmp_path / "whole")
    epochs = []
    own = FoldTrainer._train_epoch

    def killed(self, epoch):
        epochs.append(epoch)
        if len(epochs) in (2, 4):
            raise KeyboardInterrupt
        return own(self, epoch)

    monkeypatch.setattr(FoldTrainer, "_train_epoch", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            adapt_encoders(adaptation, config, tmp_path / "killed")
    (resumed,) = adapt_encoders(adaptation, config, tmp_path / "killed")
    assert epochs == [0, 1, 1, 2, 2]
    assert resumed.path.read_bytes() == whole.path.read_bytes()
    assert not (tmp_path / ".killed.unfinished").exists()


def test_an_interruption_while_the_frozen_layers_are_computed_loses_no_video(tmp_path, base, monkeypatch):
    config = CONFIG.model_copy(update={"checkpoint_minutes": 0.0, "epochs": 1})
    adaptation = adaptation_of(tmp_path, base, crops_manifest(tmp_path, subjects=4), config=config)
    adaptation = replace(adaptation, folds=adaptation.folds[:1])
    whole = adapt_encoders(adaptation, config, tmp_path / "whole")[0]
    computed = []

    def stop(completed, total, note=""):
        if "stay as they are" in note:
            computed.append(completed)
            if len(computed) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt_encoders(adaptation, config, tmp_path / "killed", on_progress=stop)
    resumed = adapt_encoders(adaptation, config, tmp_path / "killed", on_progress=stop)[0]
    assert computed[:3] == [1, 2, 2], "the second was not recorded"
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_permuted_labels_give_chance(tmp_path, base, monkeypatch):
    """Whatever an encoder learns of its training videos is worth nothing on its test if the labels mean nothing."""
    monkeypatch.setattr(fake_crops, "CONTRAST", 20)
    config, manifest = CONFIG.model_copy(update={"epochs": 3}), crops_manifest(tmp_path, subjects=8, per_label=2)
    labels = np.random.default_rng(3).permutation([entry.label for entry in manifest.entries])
    permuted = replace(
        manifest, entries=tuple(replace(e, label=str(x)) for e, x in zip(manifest.entries, labels, strict=True))
    )
    scores = {}
    for name, videos in (("true", manifest), ("permuted", permuted)):
        (folder := tmp_path / name).mkdir()
        adaptation = adaptation_of(folder, base, videos)
        for outcome in adapt_encoders(adaptation, config, folder / "weights"):
            write_features(folder, adaptation, outcome.path, outcome.fold)
        scores[name] = train(folder, videos, folder / "run").metrics["war"]["mean"]
    assert scores["true"] > 0.6
    assert abs(scores["permuted"] - 1 / 3) < 0.2


def test_heads_train_on_the_features_of_their_own_fold(adapted, tmp_path):
    """Fold 1's predictions are those of a run on fold 1's features alone."""
    folder, adaptation, _ = adapted
    both = train(folder, adaptation.manifest, tmp_path / "both")
    assert both.config["features"]["folds"]["fold-1"]["encoder_sha256"] == records_of(folder)[0].sha256
    for fold in ("1", "2"):
        table = read_features(fold_cache(folder / "features", fold))
        alone = cross_validate(adaptation.manifest, table, HEAD, CV, tmp_path / f"alone{fold}")
        tables = [run.predictions() for run in (alone, both)]
        expected, actual = (table[table.fold == fold] for table in tables)
        np.testing.assert_allclose(
            actual[[f"p_{label}" for label in LABELS]], expected[[f"p_{label}" for label in LABELS]], atol=1e-5
        )


def swapped(folder, tmp_path, part):
    """Return a copy in which the files of the two folds have each other's names."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    suffix = {"features": "h5", "weights": "safetensors"}[part]
    first, second = (copy / part / f"fold-{fold}.{suffix}" for fold in "12")
    first.rename(copy / "other")
    second.rename(first)
    (copy / "other").rename(second)
    return copy


def test_features_of_another_fold_s_encoder_are_refused(adapted, tmp_path):
    folder, adaptation, _ = adapted
    copy = swapped(folder, tmp_path, "features")
    with pytest.raises(
        CeflError, match=r"fold 1: its encoder \(of fold 2, .*\) was fine-tuned on videos .* of its test"
    ):
        train(copy, adaptation.manifest, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_names_of_encoder_files_prove_nothing_and_do_no_harm(adapted, tmp_path):
    folder, adaptation, _ = adapted
    copy = swapped(folder, tmp_path, "weights")
    train(copy, adaptation.manifest, tmp_path / "run")


def test_a_subject_of_the_test_in_another_video_is_refused(adapted, tmp_path):
    """A video that the encoder saw is no longer listed, and another one of its subject is in the test."""
    folder, adaptation, _ = adapted
    records = records_of(folder)
    subject = records[0].test_subjects[0]
    changed = replace(records[0], train_sources=("f" * 64,), train_subjects=(*records[0].train_subjects, subject))
    with pytest.raises(CeflError, match=f"was fine-tuned on videos of the subjects {subject} of its test"):
        train(folder, adaptation.manifest, tmp_path / "run", [changed, records[1]])


def test_an_encoder_that_is_not_there_is_refused(adapted, tmp_path):
    folder, adaptation, _ = adapted
    with pytest.raises(CeflError, match=r"fold 2: its features are of an encoder .* that is not there"):
        train(folder, adaptation.manifest, tmp_path / "run", records_of(folder)[:1])


def test_other_folds_than_the_encoders_are_refused(adapted, tmp_path):
    folder, adaptation, _ = adapted
    table = read_features(folder / "features")
    with pytest.raises(CeflError, match=r"fold 3: there are no features|was fine-tuned on"):
        cross_validate(
            adaptation.manifest, table, HEAD, CVConfig(folds=4), tmp_path / "run", fold_encoders=records_of(folder)
        )


def test_a_fold_is_tuned_on_its_own_features_only(adapted, tmp_path):
    """Other features of fold 2 change what is tuned for fold 2, and nothing for fold 1."""
    folder, adaptation, _ = adapted
    cv = CV.model_copy(update={"tune": ("learning_rate", "epochs"), "tune_folds": 2})
    table = read_features(folder / "features")
    half = len(table.features) // 2
    noise = np.random.default_rng(0).normal(size=table.features[half:].shape).astype(np.float16)
    other = replace(table, features=np.concatenate([table.features[:half], noise]))
    first, second = (
        cross_validate(adaptation.manifest, t, HEAD, cv, tmp_path / name, fold_encoders=records_of(folder)).tuning()
        for name, t in (("a", table), ("b", other))
    )
    is_fold_1 = first.fold.astype(str) == "1"
    assert is_fold_1.sum() == (~is_fold_1).sum() == len(cv.tune_learning_rates)
    assert first[is_fold_1].equals(second[is_fold_1])
    assert not first[~is_fold_1].equals(second[~is_fold_1])


def test_an_encoder_without_a_record_is_refused(base):
    with pytest.raises(CeflError, match="does not record the videos it was fine-tuned on"):
        read_fold_encoder(base)


def test_only_a_resnet18_can_be_adapted_and_only_on_its_crops(tmp_path, base):
    adaptation = adaptation_of(tmp_path, base, crops_manifest(tmp_path, subjects=4))
    write_encoder(tmp_path / "large.safetensors", resnet18_backbone().state_dict(), "large", "unit", {}, crop_size=64)
    with pytest.raises(CeflError, match="crops of 32 px, but large was trained on 64 px"):
        adapt_encoders(replace(adaptation, base=tmp_path / "large.safetensors"), CONFIG, tmp_path / "out")
    assert adapt_module.TRUNK_FILE not in [file.name for file in tmp_path.rglob("*")]


def test_a_fold_whose_training_videos_cannot_be_split_is_refused(tmp_path):
    manifest = crops_manifest(tmp_path, subjects=2)
    fold = make_folds(manifest.entries, "subject", 2, 1)[0]
    with pytest.raises(
        CeflError, match="fold 1: its 3 training videos cannot be split into a part to train and a part"
    ):
        split_training(manifest.entries, fold, CONFIG)
