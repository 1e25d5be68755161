"""A user sees what a cache holds, whether it is whole, and how its faces lie, before training on it."""

import json

import cv2
import numpy as np
import pytest
from helpers.cli import run_cli, run_here
from helpers.runs import LANDMARKS, frame_of, make_world
from helpers.video import write_video

from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.hdf5 import read_features
from ceflpipe.stages.align import ARCFACE_TEMPLATE
from ceflpipe.stages.plots.strips import contact_sheet_figure
from ceflpipe.stages.report.contact_sheet import contact_sheet


@pytest.fixture(scope="module")
def home(tmp_path_factory, random_encoder, photographs):
    folder = tmp_path_factory.mktemp("inspect")
    for i in range(3):
        write_video(folder / f"v{i}.mp4", [photographs["astronaut"][i : 224 + i, 100:324]] * 10)
    write_video(folder / "nobody.mp4", [np.full((96, 96, 3), 99, np.uint8)] * 8)
    (folder / "mine.csv").write_text("path,label\nv0.mp4,fear\nv1.mp4,anger\nv2.mp4,fear\nnobody.mp4,anger\n")
    run_cli(
        "extract",
        "--manifest",
        "mine.csv",
        "--encoder",
        random_encoder,
        "--crop-size",
        64,
        "--max-failed",
        1,
        cwd=folder,
        check=True,
    )
    return folder


def test_what_a_cache_holds_and_what_made_it(home):
    said = run_here("inspect", "--manifest", "mine.csv", cwd=home, check=True).stdout
    for words in (
        "4 videos, 38 frames (8 to 10 per video",
        "no face in 8 of 8 frames",
        "detected          30     78.95",
        "encoder            random",
        "--verify",
    ):
        assert " ".join(words.split()) in " ".join(said.split()), said
    told = json.loads(run_here("inspect", "artifacts/features/mine.h5", "--json", cwd=home, check=True).stdout)
    assert told["video_statuses"] == {"ok": 3, "no-face": 1}
    assert told["frame_statuses"]["missing"] == 8
    assert told["settings"]["size"] == 64
    assert told["damaged"] is None
    assert told["failed"][0]["id"] == "nobody"


def test_bytes_that_changed_are_found(home):
    whole = run_here("inspect", "--manifest", "mine.csv", "--verify", cwd=home)
    assert whole.returncode == 0
    assert "all 4 videos are as they were written" in whole.stdout
    cache = home / "artifacts/features/mine.h5"
    content = bytearray(cache.read_bytes())
    features = read_features(cache).features
    place = bytes(content).find(features[15].tobytes())
    content[place] ^= 1
    (home / "hurt.h5").write_bytes(content)
    hurt = run_here("inspect", "hurt.h5", "--verify", cwd=home)
    assert hurt.returncode == 1
    assert "damaged: 1 of 4 videos" in hurt.stdout
    assert "v1" in hurt.stdout


def test_a_sheet_is_written_and_needs_the_videos(home):
    result = run_here(
        "inspect", "--manifest", "mine.csv", "--contact-sheet", "sheet.png", "--num-videos", 3, cwd=home, check=True
    )
    assert result.stdout.splitlines()[-1] == "sheet.png"
    assert "3 videos by chance" in result.stderr
    assert cv2.imread(str(home / "sheet.png")).std() > 20
    lost = run_here("inspect", "artifacts/features/mine.h5", "--contact-sheet", "x.png", cwd=home)
    assert lost.returncode == 2
    assert "Say --dataset, or --manifest" in lost.stderr
    assert not (home / "x.png").exists()
    none = run_here("inspect", "nothing.h5", cwd=home)
    assert none.returncode == 2
    assert "nothing.h5: no such feature cache" in none.stderr


def test_crops_are_the_right_frames_with_landmarks_on_the_template(tmp_path):
    world = make_world(tmp_path)
    rows = contact_sheet(world.manifest, world.table, 6, 1)
    assert [row.label for row in rows] == ["anger", "anger", "fear", "fear", "joy", "joy"]
    for row in rows:
        assert [frame_of(tile.crop, tmp_path / row.id.removeprefix("small/")) for tile in row.tiles] == [
            tile.frame for tile in row.tiles
        ]
        for tile in row.tiles:
            if tile.landmarks is not None:
                # turning and scaling cannot bring five points each to its place, but their middle
                np.testing.assert_allclose(
                    tile.landmarks.mean(axis=0), (ARCFACE_TEMPLATE * 64 / 112).mean(axis=0), atol=1e-6
                )
    assert contact_sheet(world.manifest, world.table, 6, 1)[0].id == rows[0].id
    assert len(contact_sheet(world.manifest, world.table, 100, 1)) == len(world.manifest.entries)
    assert LANDMARKS.shape == (5, 2)


def test_the_drawn_sheet_shows_crops_dots_and_frames_of_warning(tmp_path):
    world = make_world(tmp_path, subjects=1)
    rows = contact_sheet(world.manifest, world.table, 3, 1)
    figure = contact_sheet_figure(rows)
    tiles = [tile for row in rows for tile in row.tiles]
    assert len(figure.axes) == len(tiles)
    for axes, tile in zip(figure.axes, tiles, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), tile.crop)
        dots = np.column_stack(axes.lines[0].get_data()) if axes.lines else None
        assert (dots is None) == (tile.landmarks is None)
        if dots is not None:
            np.testing.assert_allclose(dots, tile.landmarks)
        assert axes.spines["left"].get_visible() == (tile.status in (FrameStatus.MISSING, FrameStatus.INTERPOLATED))


def test_a_cache_can_be_read_without_its_features(home):
    cache = home / "artifacts/features/mine.h5"
    light, whole = read_features(cache, verify=False, features=False), read_features(cache)
    assert light.features.shape == (0, 512)
    np.testing.assert_array_equal(light.landmarks, whole.landmarks)
    assert light.identity == whole.identity
