"""Training on photographs: the layouts on disk, crops, encoder files of every storage, a kill, and the model card."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.run_cli import ROOT, run_cli, run_cli_in_process
from safetensors.torch import load_file

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.align import align_crop
from ceflpipe.stages.encoder.augment import CONTEXT_RATIO, augment_photograph
from ceflpipe.stages.encoder.encoder_config import PhotographEncoderConfig
from ceflpipe.stages.encoder.photograph_crops import crop_photograph, prepare_crops
from ceflpipe.stages.encoder.photographs import FERPLUS_LABELS, ferplus_distribution, read_photographs
from ceflpipe.stages.encoder.train_photographs import (
    PhotographTraining,
    actor_targets,
    draw_order,
    one_cycle,
    score_encoder,
    train_photograph_encoder,
)
from ceflpipe.stages.encoder.weights import (
    load_encoder,
    load_numpy,
    read_crop_size,
    read_encoder_metadata,
    resnet18_backbone,
    write_encoder,
)
from ceflpipe.stages.extract.extract_config import ExtractConfig, resolve_settings
from ceflpipe.stages.extract.find_face import find_landmarks

LABELS = ("happiness", "sadness", "surprise")
LANDMARKS = np.array([[15, 19], [32, 19], [24, 28], [17, 37], [31, 37]], float)
"""Where the drawn faces have eyes, nose and mouth corners, in an image of 48 pixels."""


def draw_face(label: str, seed: int) -> np.ndarray:
    """Draw a gray face of 48 x 48 pixels whose mouth tells its label."""
    rng = np.random.default_rng(seed)
    image = np.full((48, 48), rng.integers(60, 100), np.uint8)
    cv2.ellipse(image, (24, 26), (17, 21), 0, 0, 360, int(rng.integers(170, 220)), -1)
    for x in (16, 32):
        cv2.circle(image, (x, 19), 2, 30, -1)
    if label == "surprise":
        cv2.circle(image, (24, 37), 5, 20, -1)
    else:
        begin = 0 if label == "happiness" else 180
        cv2.ellipse(image, (24, 36), (8, 5), 0, begin, begin + 180, 20, 2)
    noise = rng.normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def write_faces(folder: Path, labels: list[str], first: int = 0) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"fer{first + index:07d}.png" for index in range(len(labels))]
    for index, (name, label) in enumerate(zip(names, labels, strict=True)):
        cv2.imwrite(str(folder / name), draw_face(label, first + index))
    return names


def votes_for(label: str, others: dict[str, int] | None = None) -> list[int]:
    counts = {**dict.fromkeys((*FERPLUS_LABELS, "unknown", "NF"), 0), **(others or {})}
    counts[label] = 10 - sum((others or {}).values())
    return list(counts.values())


@pytest.fixture(scope="module")
def ferplus(tmp_path_factory) -> Path:
    """FER+ as its authors' code lays it out, in small: label.csv per split, no header; and fer2013new.csv beside it."""
    root = tmp_path_factory.mktemp("photographs") / "ferplus"
    rows, first = [], 0
    for split, usage, number in (("Train", "Training", 48), ("Valid", "PublicTest", 12), ("Test", "PrivateTest", 12)):
        labels = [LABELS[index % 3] for index in range(number)]
        folder = root / "data" / f"FER2013{split}"
        names = write_faces(folder, labels, first)
        first += number
        votes = [votes_for(label, {"neutral": 2}) for label in labels]
        rows += [[usage, name, *values] for name, values in zip(names, votes, strict=True)]
        rows.append([usage, "", *votes_for("NF")])
        with (folder / "label.csv").open("w", newline="") as file:
            csv.writer(file).writerows([name, "(0, 0, 48, 48)", *v] for name, v in zip(names, votes, strict=True))
    with (root / "fer2013new.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Usage", "Image name", *FERPLUS_LABELS, "unknown", "NF"], *rows])
    return root


def find_face(image: np.ndarray) -> np.ndarray | None:
    """Stand in for the detector: drawn faces have their landmarks in one place, and a dark one is not detected."""
    return LANDMARKS if image.mean() > 100 else None


@pytest.mark.parametrize(("votes", "majority", "expected"), [
    # of the paper: outliers of one vote are removed; what most call unknown or no face is left out
    ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], False, {"neutral": 4 / 9, "anger": 3 / 9, "disgust": 2 / 9}),
    ([4, 0, 0, 1, 3, 2, 0, 0, 0, 0], True, None),
    ([0, 5, 0, 0, 0, 0, 0, 0, 4, 1], False, {"happiness": 1.0}),
    ([0, 5, 0, 0, 0, 0, 0, 0, 4, 1], True, {"happiness": 1.0}),
    ([0, 3, 0, 0, 0, 0, 0, 0, 7, 0], False, None),
    ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], False, None),
    ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], False, None),
    ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], False, {"neutral": 0.5, "happiness": 0.5}),
    ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], True, None),
])  # fmt: skip
def test_votes_become_a_distribution_as_in_ferplus(votes, majority, expected):
    distribution = ferplus_distribution(np.array(votes), majority=majority)
    if expected is None:
        assert distribution is None
    else:
        np.testing.assert_allclose(distribution, [expected.get(label, 0) for label in FERPLUS_LABELS])


def test_ferplus_is_read_in_both_of_its_layouts(ferplus, tmp_path):
    """The label files per split, and the one file with a header whose images are known by name."""
    per_split = read_photographs(ferplus)
    one_file = tmp_path / "one"
    shutil.copytree(ferplus, one_file, ignore=shutil.ignore_patterns("label.csv"))
    combined = read_photographs(one_file)
    for photographs in (per_split, combined):
        assert {s: int((photographs.splits == s).sum()) for s in ("train", "val", "test")} == {
            "train": 48,
            "val": 12,
            "test": 12,
        }
        assert photographs.labels[:5] == ("anger", "disgust", "fear", "happiness", "neutral")
        assert photographs.labels[-1] == "contempt"
        np.testing.assert_allclose(photographs.targets.sum(axis=1), 1)
        happy, neutral = photographs.targets[0][[3, 4]]
        assert (round(float(happy), 6), round(float(neutral), 6)) == (0.8, 0.2)
    assert {path.name for path in per_split.paths} == {path.name for path in combined.paths}
    assert "3 photographs without a clear label" in combined.notes[0]
    (one_file / "data/FER2013Train/fer0000003.png").unlink()
    with pytest.raises(CeflError, match=r"1 images of its label file are missing: fer0000003\.png"):
        read_photographs(one_file)


def test_folders_and_lists_of_photographs_are_read(tmp_path):
    for split, folder, label in (
        ("train", "Happy", "happiness"),
        ("train", "sad_faces", "sadness"),
        ("test", "happy", "happiness"),
    ):
        write_faces(tmp_path / "set" / split / folder, [label] * 12)
    folder = tmp_path / "set"
    (folder / "train/sad_faces").rename(folder / "train/3_Sad")
    photographs = read_photographs(folder)
    assert photographs.labels == ("happiness", "sadness")
    by_label = {
        path.parent.name: photographs.labels[row.argmax()]
        for path, row in zip(photographs.paths, photographs.targets, strict=True)
    }
    assert by_label == {"Happy": "happiness", "3_Sad": "sadness", "happy": "happiness"}
    assert (photographs.splits == "test").sum() == 12
    assert 0 < (photographs.splits == "val").sum() < 24
    assert np.array_equal(photographs.splits, read_photographs(folder).splits)

    rows = [
        ("train/Happy/fer0000000.png", "Happy", "train"),
        ("train/3_Sad/fer0000000.png", "sad", ""),
        ("test/happy/fer0000001.png", "joy", "val"),
    ]
    (folder / "list.csv").write_text("path;label;split\n" + "".join(";".join(row) + "\n" for row in rows))
    listed = read_photographs(folder / "list.csv")
    assert [listed.labels[row.argmax()] for row in listed.targets] == ["happiness", "sadness", "happiness"]
    assert listed.splits.tolist() == ["train", "train", "val"]


@pytest.mark.parametrize(("build", "message"), [
    (lambda root: write_faces(root / "1", ["sadness"]), "no folder is named after an expression .found 1."),
    (lambda root: write_faces(root / "happy", ["happiness"]), "photographs of 1 expressions"),
    (lambda root: (root / "fer2013new.csv").write_text("Usage,Image name\n"), "FER.* has labels only"),
    (lambda root: None, "no images in it"),
    (lambda root: (write_faces(root, ["sadness"]), (root / "label.csv").write_text("fer0000000.png,1,2\n")), "line 1: expected an image"),
])  # fmt: skip
def test_layouts_that_are_not_known_are_refused_with_the_reason(tmp_path, build, message):
    build(tmp_path)
    with pytest.raises(CeflError, match=message):
        read_photographs(tmp_path)


def test_crops_of_photographs_are_those_of_stage_one(photographs, tmp_path):
    """A real face: the middle of the crop equals align_crop at the detector's landmarks, as in stage one; small ones are enlarged."""
    image = photographs["astronaut"]
    landmarks = find_landmarks(image)
    assert landmarks is not None
    size, width = 64, round(64 * CONTEXT_RATIO)
    crop = crop_photograph(image, landmarks / image.shape[1::-1], size)
    assert crop.shape == (width, width, 3)
    edge = (width - size) // 2
    inner = crop[edge : edge + size, edge : edge + size].astype(int)
    assert np.abs(inner - align_crop(image, landmarks, size)).mean() < 1

    x, y = landmarks.mean(axis=0).astype(int)
    face = cv2.resize(image[y - 75 : y + 75, x - 75 : x + 75], (48, 48), interpolation=cv2.INTER_AREA)
    small = find_landmarks(face)
    expected = (landmarks - [x - 75, y - 75]) * 48 / 150
    assert small is not None
    assert np.linalg.norm(small - expected, axis=1).mean() < 0.1 * np.linalg.norm(expected[1] - expected[0])
    assert find_landmarks(np.full((48, 48, 3), 128, np.uint8)) is None


def test_photographs_without_a_detection_are_cropped_where_faces_usually_are(ferplus, tmp_path):
    photographs = read_photographs(ferplus)
    dark = np.zeros((48, 48), np.uint8)
    cv2.circle(dark, (15, 19), 3, 90, -1)  # where the others have their left eye
    file = tmp_path / "dark.png"
    cv2.imwrite(str(file), dark)
    (tmp_path / "broken.png").write_bytes(b"no image")
    photographs.paths[0], photographs.paths[1] = file, tmp_path / "broken.png"
    crops = prepare_crops(photographs, 32, tmp_path / "work", find_face)
    assert len(crops.crops) == len(photographs) - 1
    assert crops.rows[:2].tolist() == [0, 2]
    assert not crops.detected[0]
    assert crops.detected[1:].all()
    assert f"{len(photographs) - 2:,} of {len(photographs) - 1:,}" in crops.describe()
    y, x = np.unravel_index(cv2.GaussianBlur(crops.crops[0][..., 0], (0, 0), 1).argmax(), crops.crops.shape[1:3])
    assert np.hypot(x - 14.9, y - 18.8) < 2  # that of the template, in a crop of 32 pixels with a margin of 4
    assert "broken.png" in photographs.notes[-1]
    again = prepare_crops(photographs, 32, tmp_path / "work", lambda image: pytest.fail("detected again"))
    assert np.array_equal(again.crops, crops.crops)


def test_rare_labels_are_sampled_more_often():
    targets = np.eye(2, dtype=np.float32)[[0] * 900 + [1] * 100]
    rows = np.arange(1000)
    plain = draw_order(targets, rows, 0.0, 1, 0)
    assert sorted(plain) == rows.tolist()
    assert not np.array_equal(plain, draw_order(targets, rows, 0.0, 1, 1))
    for balance in (0.5, 1.0):
        shares = np.array([900 ** (1 - balance), 100 ** (1 - balance)])
        counts = np.bincount(targets[draw_order(targets, rows, balance, 1, 0)].argmax(1))
        np.testing.assert_allclose(counts / 1000, shares / shares.sum(), atol=0.01)


def test_augmented_photographs_are_reproducible_and_keep_their_size(photographs):
    image = cv2.GaussianBlur(cv2.resize(photographs["astronaut"], (80, 80)), (0, 0), 1.5)
    crops = [augment_photograph(image, 64, np.random.default_rng(seed)) for seed in range(60)]
    assert all(crop.shape == (64, 64, 3) and crop.dtype == np.uint8 for crop in crops)
    assert np.array_equal(crops[7], augment_photograph(image, 64, np.random.default_rng(7)))
    detail = [cv2.Laplacian(crop, cv2.CV_64F).std() for crop in crops]
    clean = cv2.Laplacian(image[8:72, 8:72], cv2.CV_64F).std()
    assert min(detail) < clean / 2
    assert max(detail) > clean * 1.5


def test_intensities_of_actors_become_label_distributions():
    intensity = np.zeros((3, 6))
    intensity[1, 3], intensity[2, 5] = 1.0, 0.15
    labels = ("happiness", "neutral", "surprise")
    np.testing.assert_allclose(actor_targets(intensity, labels), [[0, 1, 0], [1, 0, 0], [0, 0.75, 0.25]], atol=1e-6)
    np.testing.assert_allclose(actor_targets(intensity, ("happiness", "surprise")).sum(axis=1), 1)


def test_the_learning_rate_rises_once_and_falls():
    rates = np.array([one_cycle(step, 200, 0.5) for step in range(200)])
    peak = rates.argmax()
    assert rates[peak] == pytest.approx(0.5)
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[-1] < 0.001


@pytest.mark.parametrize(
    ("storage", "megabytes", "cosine"), [("fp32", 45, 1.0), ("fp16", 23, 0.99999), ("int8", 12, 0.999)]
)
def test_stored_weights_give_the_features_of_the_full_ones(tmp_path, storage, megabytes, cosine):
    torch.manual_seed(2)
    network = resnet18_backbone().eval()
    path = tmp_path / "x.safetensors"
    classifier = (torch.randn(2, 512), torch.randn(2))
    write_encoder(
        path,
        network.state_dict(),
        "x",
        "imagenet",
        {},
        crop_size=48,
        storage=storage,
        classifier=classifier,
        labels=("a", "b"),
    )
    assert path.stat().st_size < megabytes * 1e6
    images = torch.randn(4, 3, 48, 48)
    with torch.no_grad():
        similarity = torch.nn.functional.cosine_similarity(load_encoder(path)(images), network(images))
    assert similarity.min() > cosine - 1e-6
    assert all(value.dtype in (np.float32, np.int64) for value in load_numpy(path).values())
    encoder = read_encoder_metadata(path)
    assert (encoder.crop_size, encoder.storage, encoder.labels) == (48, storage, ("a", "b"))


def test_the_same_weights_give_an_encoder_file_of_the_same_bytes(tmp_path):
    """Its hash is the encoder's identity; safetensors itself writes metadata in a random order."""
    state, path = {"conv1.weight": torch.ones(2, 3)}, tmp_path / "x.safetensors"
    contents = set()
    for _ in range(8):
        write_encoder(path, state, "x", "unit", {"source": "é\n"}, crop_size=80, labels=("a", "b"),
                      classifier=(torch.ones(2, 512), torch.zeros(2)))  # fmt: skip
        contents.add(path.read_bytes())
    assert len(contents) == 1
    assert torch.equal(load_file(path)["conv1.weight"], state["conv1.weight"])
    assert read_encoder_metadata(path).metadata == {"source": "é\n"}


def test_stage_one_takes_the_crop_size_of_the_encoder_file(tmp_path, random_encoder):
    torch.manual_seed(0)
    write_encoder(tmp_path / "x.safetensors", resnet18_backbone().state_dict(), "x", "unit", {}, crop_size=80)
    assert resolve_settings(ExtractConfig(encoder=tmp_path / "x.safetensors")).crop_size == 80
    assert resolve_settings(ExtractConfig(encoder=tmp_path / "x.safetensors", crop_size=96)).crop_size == 96
    assert read_crop_size(random_encoder) == 224
    run_cli_in_process("encoder", "file:x.safetensors", "--out", "y.safetensors", cwd=tmp_path, check=True)
    assert read_crop_size(tmp_path / "y.safetensors") == 80
    (tmp_path / "happy").mkdir()
    cv2.imwrite(str(tmp_path / "happy/0.png"), draw_face("happiness", 0))
    (tmp_path / "list.csv").write_text("path,label\nhappy,happiness\n")
    arguments = ("extract", "--manifest", "list.csv", "--encoder", "x.safetensors", "--dry-run")
    warning = "warning: crops of 96 px, but x.safetensors was trained on 80 px"
    assert warning in run_cli_in_process(*arguments, "--crop-size", 96, cwd=tmp_path, check=True).stderr
    assert "warning" not in run_cli_in_process(*arguments, cwd=tmp_path, check=True).stderr


@pytest.fixture(scope="module")
def trained(ferplus, tmp_path_factory) -> Path:
    """An encoder trained on the drawn faces for a few steps, together with rendered ones, stored with 8 bits."""
    out = tmp_path_factory.mktemp("encoder") / "drawn.safetensors"
    config = PhotographEncoderConfig(
        epochs=4, batch_size=12, crop_size=32, joint="actors", actor_images=64, storage="int8", label_balance=0.0
    )
    training = PhotographTraining(ferplus, find_face, license="drawn for tests", command="ceflpipe encoder …")
    calls = []
    train_photograph_encoder(
        training,
        out,
        "drawn",
        config,
        on_progress=lambda completed, total, note="": calls.append((completed, total, note)),
    )
    assert calls[-1][:2] == (16, 16)
    assert not out.with_name("drawn.safetensors.training").exists()
    return out


@pytest.mark.slow
def test_an_encoder_file_says_what_it_was_trained_on_and_how_well_it_does(trained, ferplus, tmp_path):
    encoder = read_encoder_metadata(trained)
    confusion = np.array(json.loads(encoder.metadata["confusion"]))
    assert confusion.sum() == 12
    assert f"{np.trace(confusion) / 12:.3f} of 12 validation photographs" in encoder.metadata["held_out_score"]
    assert float(encoder.metadata["storage_cosine"].split()[2].rstrip(",")) > 0.999
    card = run_cli_in_process("inspect", trained, cwd=tmp_path, check=True).stdout
    for text in (
        encoder.sha256, "drawn for tests", "FER+: 48 photographs to train", "## Fails on", "must not be used", "recall %",
    ):  # fmt: skip
        assert text in card
    scores, _ = score_encoder(trained, ferplus, "val", tmp_path / "work", find_face)
    assert abs(int(np.trace(scores.confusion)) - int(np.trace(confusion))) <= 1  # 8-bit weights


@pytest.mark.slow
def test_the_accuracy_of_an_encoder_is_printed_by_a_command(trained, ferplus, tmp_path, random_encoder):
    done = run_cli_in_process("inspect", trained, "--photographs", ferplus, "--json", cwd=tmp_path, check=True)
    values = json.loads(done.stdout)
    assert values["photographs"] == 12
    assert values["accuracy"] == pytest.approx(np.trace(values["confusion"]) / 12)
    refused = run_cli_in_process("inspect", random_encoder, "--photographs", ferplus, cwd=tmp_path)
    assert refused.returncode == 2
    assert "has no classifier" in refused.stderr


@pytest.mark.slow
def test_training_goes_on_after_a_kill_and_gives_the_same_file(ferplus, tmp_path):
    (tmp_path / "configs").mkdir()
    config = "photographs: {epochs: 2, batch_size: 12, crop_size: 32, checkpoint_minutes: 0}\n"
    (tmp_path / "configs/encoder.yaml").write_text(config)
    command = ["encoder", f"photographs:{ferplus}", "--threads", 1, "--quiet", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ceflpipe.pipeline", *map(str, command), "killed.safetensors"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
    )  # fmt: skip
    checkpoint = tmp_path / "killed.safetensors.training/checkpoint.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed.safetensors").exists()
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 1 <= step < 8
    refused = run_cli(*command, "killed.safetensors", "--epochs", 3, cwd=tmp_path)
    assert refused.returncode == 2
    assert "of an interrupted training with other options" in refused.stderr
    run_cli(*command, "killed.safetensors", cwd=tmp_path, check=True)
    run_cli(*command, "whole.safetensors", cwd=tmp_path, check=True)
    killed, whole = (load_file(tmp_path / f"{name}.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(killed[key], whole[key]) for key in whole)
    assert not list(tmp_path.glob("*.training"))


@pytest.mark.slow
def test_training_begins_with_the_weights_of_another_encoder(trained, ferplus, tmp_path):
    config = PhotographEncoderConfig(epochs=1, batch_size=48, crop_size=32, learning_rate=1e-9)
    training = PhotographTraining(ferplus, find_face, init=trained)
    metadata = train_photograph_encoder(training, tmp_path / "x.safetensors", "x", config)
    assert metadata["init"] == "drawn.safetensors"
    start, end = load_numpy(trained), load_numpy(tmp_path / "x.safetensors")
    np.testing.assert_allclose(end["layer4.1.conv2.weight"], start["layer4.1.conv2.weight"], atol=1e-6)
