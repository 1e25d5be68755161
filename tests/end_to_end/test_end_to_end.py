"""Joint training: the forward pass is that of the two stages, a few steps learn, and a kill changes nothing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import fake_crops
from helpers.fake_crops import LABELS, SIZE, crops_manifest, write_base, write_crops

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_crops, read_features, read_index
from ceflpipe.pipeline.training import read_fold_encoder
from ceflpipe.stages.encoder.weights import (
    load_encoder,
    read_encoder_metadata,
    resnet18_backbone,
    write_encoder,
)
from ceflpipe.stages.end_to_end import train_end_to_end as module
from ceflpipe.stages.end_to_end.train_end_to_end import EndToEnd, JointModel, JointTrainer, train_end_to_end
from ceflpipe.stages.heads.clip_sampling import sample_clips_train, unique_frames
from ceflpipe.stages.heads.evaluate import evaluate
from ceflpipe.stages.heads.feature_bank import FeatureBank
from ceflpipe.stages.heads.layers import BatchedDropout, init_weights
from ceflpipe.stages.heads.registry import build_head
from ceflpipe.stages.heads.run_io import read_run, verify_run
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig

pytestmark = pytest.mark.slow

CONFIG = TrainConfig(
    num_clips=2, frames_per_clip=2, epochs=2, warmup_epochs=1, batch_size=4, learning_rate=3e-4, precision="fp32"
)
CV = CVConfig(folds=2)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums of one thread have one order; fp32 on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("trained")
    task = task_of(folder, base, crops_manifest(folder, subjects=4))
    return task, train_end_to_end(task, CONFIG, CV, folder / "run")


def task_of(folder, base, manifest):
    crops = write_crops(folder / "crops.h5", manifest)
    return EndToEnd(manifest, crops, base, folder / "encoders", torch.device("cpu"), checkpoint_minutes=0.0)


@pytest.mark.parametrize("head", ["cefl", "released", "mean", "lstm"])
def test_the_forward_pass_is_that_of_the_two_stages(tmp_path, base, head):
    """All crops are encoded first, and their features go to the head; of two videos, one of which repeats frames."""
    manifest = crops_manifest(tmp_path, subjects=1)
    index = read_index(crops := write_crops(tmp_path / "crops.h5", manifest, frames=(5, 25)))
    config = CONFIG.model_copy(update={"num_clips": 7, "frames_per_clip": 5})
    network, heads = load_encoder(base), build_head(head, 1, 512, 3)
    init_weights(heads, [torch.Generator().manual_seed(1)])
    model = JointModel(network, heads, read_encoder_metadata(base), "fp32", "fp32").eval()
    numbers = [0, 2]
    lengths = torch.from_numpy(index.length[numbers])
    frames = sample_clips_train(lengths, 7, 5, torch.Generator().manual_seed(2))
    clips = unique_frames(frames)
    distinct = [np.unique(each) for each in frames.flatten(1).numpy()]
    assert len(distinct[0]) != len(distinct[1])
    read = [read_crops(crops, index, number, each) for number, each in zip(numbers, distinct, strict=True)]
    with torch.no_grad():
        joint = model(np.concatenate(read), clips, BatchedDropout(None))
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        features = []
        for number in numbers:
            pixels = ((read_crops(crops, index, number) / 255 - mean) / std).transpose(0, 3, 1, 2)
            features.append(network(torch.from_numpy(pixels).float()))
        separate = heads(torch.stack([f[i] for f, i in zip(features, frames, strict=True)])[None], BatchedDropout(None))
    assert config.num_clips == joint.intensity.shape[-1] if joint.intensity is not None else True
    torch.testing.assert_close(joint.logits, separate.logits, rtol=1e-4, atol=1e-4)
    if joint.intensity is not None:
        torch.testing.assert_close(joint.intensity, separate.intensity, rtol=1e-4, atol=1e-4)


def test_the_predictions_are_those_of_the_two_stages_with_the_files_it_wrote(trained):
    """Each fold's encoder file on the crops, then the run's head: by the functions of stage two."""
    task, run = trained
    table, head = run.predictions(), run.head()
    index = read_index(task.crops)
    for m, fold in enumerate(("1", "2")):
        network = load_encoder(task.encoders / f"fold-{fold}.safetensors")
        rows = table[table.fold == fold]
        numbers = [index.id.index(name) for name in rows.id]
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        features = []
        for number in numbers:
            pixels = ((read_crops(task.crops, index, number) / 255 - mean) / std).transpose(0, 3, 1, 2)
            features.append(network(torch.from_numpy(pixels).float()))
        length = torch.tensor([len(f) for f in features])
        bank = FeatureBank(torch.cat(features), length.cumsum(0) - length, length, torch.zeros_like(length), 3)
        videos = torch.zeros(2, len(numbers), dtype=torch.long)
        videos[m] = torch.arange(len(numbers))
        probabilities = evaluate(head, bank, videos, CONFIG).probabilities[m]
        np.testing.assert_allclose(rows[[f"p_{label}" for label in LABELS]].to_numpy(), probabilities, atol=1e-4)


def test_the_run_is_one_like_others_and_its_encoders_say_what_they_saw(trained):
    task, run = trained
    assert verify_run(run.path)
    again = read_run(run.path)
    assert again.extraction_settings.encoder == "base-end-to-end"
    assert again.config["end_to_end"]["base"] == "base"
    assert set(again.predictions().id) == {entry.id for entry in task.manifest.entries}
    assert list(again.history().epoch) == [1, 2, 1, 2]
    for fold in ("1", "2"):
        record = read_fold_encoder(task.encoders / f"fold-{fold}.safetensors")
        tested = {video.split("_")[0] for video in again.config["folds"][fold]}
        assert set(record.test_subjects) == tested
        assert not tested & set(record.train_subjects)


def test_gradients_reach_the_encoder_and_batch_normalization_learns(trained, base):
    before = load_encoder(base).state_dict()
    after = load_encoder(trained[0].encoders / "fold-1.safetensors").state_dict()
    for name in ("conv1.weight", "layer1.0.conv1.weight", "layer4.1.bn2.weight", "bn1.running_mean"):
        assert not torch.equal(before[name], after[name]), name


def test_a_few_epochs_lower_the_loss(tmp_path, base, monkeypatch):
    monkeypatch.setattr(fake_crops, "CONTRAST", 120)
    task = task_of(tmp_path, base, crops_manifest(tmp_path, subjects=6))
    config = CONFIG.model_copy(update={"epochs": 4, "warmup_epochs": 0})
    run = train_end_to_end(task, config, CV, tmp_path / "run")
    losses = run.history().groupby("epoch").train_loss.mean()
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


def test_a_finished_run_is_not_trained_again_and_another_base_is(trained, monkeypatch, base, tmp_path):
    task, run = trained
    monkeypatch.setattr(JointTrainer, "run", lambda *arguments: pytest.fail("trained again"))
    assert train_end_to_end(task, CONFIG, CV, run.path).metrics == run.metrics
    torch.manual_seed(1)
    write_encoder(tmp_path / "b.safetensors", resnet18_backbone().state_dict(), "b", "imagenet", {}, crop_size=SIZE)
    with pytest.raises(pytest.fail.Exception):
        train_end_to_end(replace(task, base=tmp_path / "b.safetensors"), CONFIG, CV, run.path)


@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
def test_a_kill_in_any_epoch_gives_the_same_run(trained, tmp_path, monkeypatch, killed_at):
    task, whole = trained
    epochs, own = [], JointTrainer.train_epoch

    def killed(self, epoch):
        epochs.append(epoch)
        if len(epochs) == killed_at:
            raise KeyboardInterrupt
        return own(self, epoch)

    monkeypatch.setattr(JointTrainer, "train_epoch", killed)
    other = replace(task, encoders=tmp_path / "encoders")
    with pytest.raises(KeyboardInterrupt):
        train_end_to_end(other, CONFIG, CV, tmp_path / "run")
    resumed = train_end_to_end(other, CONFIG, CV, tmp_path / "run")
    assert len(epochs) == 5, "only the killed epoch is trained again"
    for name in (
        "weights.safetensors",
        "history.csv",
        "metrics.json",
        "predictions/fold-1.csv",
        "predictions/fold-2.csv",
    ):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
    for file in (tmp_path / "encoders").glob("*.safetensors"):
        assert file.read_bytes() == (task.encoders / file.name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoders", "run"]


def test_videos_without_a_face_count_as_errors(tmp_path, base):
    manifest = crops_manifest(tmp_path, subjects=4)
    task = task_of(tmp_path, base, manifest)
    index = read_index(task.crops)
    from ceflpipe.cache.hdf5 import read_video, write_videos

    videos = [read_video(task.crops, name, index) for name in index.id]
    videos[0] = replace(videos[0], status="no-face")
    write_videos(task.crops, videos, read_features(task.crops, features=False).settings)
    run = train_end_to_end(task, CONFIG.model_copy(update={"epochs": 1}), CV, tmp_path / "run")
    row = run.predictions().set_index("id").loc[videos[0].id]
    assert (row.predicted, bool(row.correct)) == ("", False)
    assert run.metrics["videos_without_prediction"] == 1


def test_a_network_that_is_no_resnet18_or_has_other_crops_is_refused(tmp_path, base):
    task = task_of(tmp_path, base, crops_manifest(tmp_path, subjects=4))
    write_encoder(tmp_path / "large.safetensors", resnet18_backbone().state_dict(), "large", "unit", {}, crop_size=64)
    with pytest.raises(CeflError, match="crops of 32 px, but large was trained on 64 px"):
        train_end_to_end(replace(task, base=tmp_path / "large.safetensors"), CONFIG, CV, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_epoch_of_the_test_is_kept_and_marked_as_optimistic(tmp_path, base, monkeypatch):
    task = task_of(tmp_path, base, crops_manifest(tmp_path, subjects=4))
    scores = iter([0.5, 0.9, 0.1, 0.4, 0.2, 0.3])
    monkeypatch.setattr(module, "war", lambda correct: next(scores))
    states, own = [], JointTrainer.train_epoch

    def recorded(self, epoch):
        result = own(self, epoch)
        states.append(self.model.head.state_dict()["eian.score.weight"].clone())
        return result

    monkeypatch.setattr(JointTrainer, "train_epoch", recorded)
    cv = CV.model_copy(update={"checkpoint": "best-test"})
    run = train_end_to_end(task, CONFIG.model_copy(update={"epochs": 3}), cv, tmp_path / "run")
    assert run.metrics["optimistic"]
    kept = run.head().state_dict()["eian.score.weight"]
    torch.testing.assert_close(kept, torch.cat([states[1], states[3]]))
    assert isinstance(run.history(), pd.DataFrame)
