"""Videos composed of photographs: their course, their features, their splits, and the command."""

import itertools

import cv2
import numpy as np
import pytest
from helpers.run_cli import run_cli_in_process
from hypothesis import example, given
from hypothesis import strategies as st

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.encoder.weights import read_encoder_metadata
from ceflpipe.stages.extract.compose import (
    MAX_FLICKER,
    NEUTRAL,
    NUM_VIEWS,
    ComposeConfig,
    Composer,
    LabelledCrops,
    compose_videos,
    draw_walk,
    mix_views,
)
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_settings
from ceflpipe.stages.slots import NUM_SLOTS

LABELS = ("anger", "happiness", NEUTRAL)
SIDE = 40


class GrayEncoder:
    """Stands in for the network: the features of a crop are its mean level, 512 times."""

    device_type = "cuda"
    width = 512

    def __call__(self, crops):
        return np.repeat(crops.mean(axis=(1, 2, 3))[:, None], 512, axis=1).astype(np.float16)


@pytest.fixture
def data() -> LabelledCrops:
    """Gray squares: photographs of a label have levels of their own, and those that validate have others."""
    levels, targets, splits = [], [], []
    for split, offset in (("train", 0), ("val", 100)):
        for column in range(3):
            for number in range(4):
                levels.append(offset + 30 * column + number)
                targets.append(np.eye(3)[column])
                splits.append(split)
    crops = np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), SIDE, SIDE, 3))
    names = [f"{level}.png" for level in levels]
    return LabelledCrops(crops, np.array(targets), np.array(splits), names, LABELS)


@given(st.integers(0, 2**32 - 1), st.sampled_from(LABELS))
def test_a_course_is_of_3_to_105_frames_and_has_its_peak_at_the_apex(seed, label):
    walk = draw_walk(np.random.default_rng(seed), label)
    assert 3 <= len(walk.share) <= NUM_SLOTS
    assert walk.share.min() >= 0
    assert walk.share.max() <= 1
    if label == NEUTRAL:
        assert walk.apex == -1
        assert walk.share.max() <= MAX_FLICKER
    else:
        assert walk.share[walk.apex] == pytest.approx(walk.share.max())
        assert walk.share.max() > MAX_FLICKER


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(3, 105))
@example(11347597, 3, 3)  # a view less than a hundredth of a frame before the last one
def test_a_walk_begins_and_ends_at_the_outer_views_and_leaves_their_hull_nowhere(seed, count, frames):
    views = np.random.default_rng(seed).normal(size=(count, 7))
    mixed = mix_views(views, frames, np.random.default_rng(seed))
    assert mixed.shape == (frames, 7)
    np.testing.assert_allclose(mixed[[0, -1]], views[[0, -1]], atol=1e-4)
    assert (mixed <= views.max(axis=0) + 1e-9).all()
    assert (mixed >= views.min(axis=0) - 1e-9).all()


def test_features_are_those_of_the_expression_and_of_the_neutral_face_in_their_shares(data):
    composer = Composer(data, ComposeConfig(num_videos=8), 32)
    walk = draw_walk(np.random.default_rng(3), "anger")
    views = np.concatenate([np.full((NUM_VIEWS, 5), 8.0), np.full((NUM_VIEWS, 5), 2.0)])
    features = composer.features(walk, views, 0)
    np.testing.assert_allclose(features, np.repeat((2 + 6 * walk.share)[:, None], 5, axis=1), rtol=2e-3)


def compose(data, random_encoder, **options):
    settings = resolve_settings(ExtractConfig(encoder=random_encoder, crop_size=32, precision="fp32"))
    return list(compose_videos(data, LABELS, GrayEncoder(), settings, ComposeConfig(**options)))


def test_videos_are_reproducible_balanced_and_their_splits_share_no_photograph(data, random_encoder):
    first = compose(data, random_encoder, num_videos=60, val_share=0.25)
    again = compose(data, random_encoder, num_videos=60, val_share=0.25)
    other = compose(data, random_encoder, num_videos=60, val_share=0.25, seed=1)
    assert [video.checksum for _, video in first] == [video.checksum for _, video in again]
    assert [video.checksum for _, video in first] != [video.checksum for _, video in other]
    assert {video.device for _, video in first} == {"cuda"}
    labels = [entry.label for entry, _ in first]
    assert [labels.count(label) for label in LABELS] == [20, 20, 20]
    photographs = {"train": set(), "val": set()}
    for entry, video in first:
        used = set(video.note.removeprefix("composed of the photographs ").split(", "))
        photographs[entry.split] |= used
        levels = {int(name.removesuffix(".png")) % 100 // 30 for name in used}
        assert levels <= {LABELS.index(entry.label), 2} or entry.label == NEUTRAL
    assert photographs["train"]
    assert not photographs["train"] & photographs["val"]
    assert sum(entry.split == "val" for entry, _ in first) == 15


def test_a_label_without_photographs_is_named(data, random_encoder):
    uncertain = LabelledCrops(data.crops, data.targets * 0.4, data.splits, data.names, data.labels)
    with pytest.raises(CeflError, match=r"no photograph of anger, happiness, neutral.* in the train split that 50 %"):
        compose(uncertain, random_encoder, num_videos=6)


@pytest.mark.slow
def test_heads_train_on_composed_videos_as_on_a_data_set(tmp_path, random_encoder, photographs):
    for split, label in itertools.product(("train", "val"), ("happy", "angry", "neutral")):
        folder = tmp_path / "photos" / split / label
        folder.mkdir(parents=True)
        for number in range(3):
            image = photographs["astronaut"][20 : 220 + number, 120 : 320 + number, ::-1]
            cv2.imwrite(str(folder / f"{split}-{label}{number}.png"), image)
    arguments = ("--encoder", random_encoder, "--videos", 30)
    done = run_cli_in_process("compose", f"photographs:{tmp_path}/photos", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = read_features(tmp_path / "artifacts/features/composed/random.h5")
    assert len(table.videos) == 30
    assert table.settings.encoder_sha256 == read_encoder_metadata(random_encoder).sha256
    options = ("--fold-scheme", "split", "--clips", 3, "--epochs", 2, "--out", "run")
    trained = run_cli_in_process(
        "train-heads", "--manifest", "artifacts/manifests/composed.csv", *options, cwd=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    assert "6 videos" in trained.stdout
    assert not (tmp_path / "artifacts/features/composed/random.h5.photographs").exists()
    (tmp_path / "artifacts/features/composed/random.h5").write_text("mine")
    refused = run_cli_in_process("compose", f"photographs:{tmp_path}/photos", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert (tmp_path / "artifacts/features/composed/random.h5").read_text() == "mine"
