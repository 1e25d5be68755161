"""`ceflpipe inspect`: contents of a cache, its checksums, and the contact sheet of its aligned faces."""

import json

import cv2
import numpy as np
import pytest
from helpers.run_cli import run_cli, run_cli_in_process
from helpers.runs import frame_of, make_small_dataset
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
    write_video(folder / "no_face.mp4", [np.full((96, 96, 3), 99, np.uint8)] * 8)
    (folder / "mine.csv").write_text("path,label\nv0.mp4,fear\nv1.mp4,anger\nv2.mp4,fear\nno_face.mp4,anger\n")
    options = ("--encoder", random_encoder, "--crop-size", 64, "--max-failed", 1)
    run_cli("extract", "--manifest", "mine.csv", *options, cwd=folder, check=True)
    return folder


def test_contents_and_settings_of_a_cache(home):
    output = run_cli_in_process("inspect", "--manifest", "mine.csv", cwd=home, check=True).stdout
    for line in (
        "4 videos, 38 frames (8 to 10 per video",
        "no face in 8 of 8 frames",
        "detected          30     78.95",
        "encoder            random",
        "--verify",
    ):
        assert " ".join(line.split()) in " ".join(output.split()), output
    summary = json.loads(
        run_cli_in_process("inspect", "artifacts/features/mine/random.h5", "--json", cwd=home, check=True).stdout
    )
    assert summary["video_statuses"] == {"ok": 3, "no-face": 1}
    assert summary["frame_statuses"]["missing"] == 8
    assert summary["settings"]["crop_size"] == 64
    assert summary["corrupted"] is None
    assert summary["failed"][0]["id"] == "no_face"


def test_verify_finds_changed_bytes(home):
    intact = run_cli_in_process("inspect", "--manifest", "mine.csv", "--verify", cwd=home)
    assert intact.returncode == 0
    assert "all 4 checksums OK" in intact.stdout
    cache = home / "artifacts/features/mine/random.h5"
    content = bytearray(cache.read_bytes())
    features = read_features(cache).features
    content[bytes(content).find(features[15].tobytes())] ^= 1
    (home / "changed.h5").write_bytes(content)
    changed = run_cli_in_process("inspect", "changed.h5", "--verify", cwd=home)
    assert changed.returncode == 1
    assert "1 of 4 videos corrupted (v1)" in changed.stdout


def test_a_contact_sheet_is_written_and_needs_the_videos(home):
    result = run_cli_in_process(
        "inspect", "--manifest", "mine.csv", "--contact-sheet", "sheet.png", "--num-videos", 3, cwd=home, check=True
    )
    assert result.stdout.splitlines()[-1] == "sheet.png"
    assert "3 random videos" in result.stderr
    assert cv2.imread(str(home / "sheet.png")).std() > 20
    no_videos = run_cli_in_process("inspect", "artifacts/features/mine/random.h5", "--contact-sheet", "x.png", cwd=home)
    assert no_videos.returncode == 2
    assert "mine/random.h5; pass --dataset, or --manifest" in no_videos.stderr
    assert not (home / "x.png").exists()
    missing = run_cli_in_process("inspect", "missing.h5", cwd=home)
    assert missing.returncode == 2
    assert "missing.h5: no such feature cache" in missing.stderr


def test_crops_are_the_right_frames_with_landmarks_on_the_template(tmp_path):
    data = make_small_dataset(tmp_path)
    rows = contact_sheet(data.manifest, data.table, 6, 1)
    assert [row.label for row in rows] == ["anger", "anger", "fear", "fear", "joy", "joy"]
    for row in rows:
        assert [frame_of(tile.crop, tmp_path / row.id.removeprefix("small/")) for tile in row.tiles] == [
            tile.frame for tile in row.tiles
        ]
        for tile in row.tiles:
            if tile.landmarks is not None:
                # a similarity transform cannot map all five points to the template, but it maps their center
                np.testing.assert_allclose(
                    tile.landmarks.mean(axis=0), (ARCFACE_TEMPLATE * 64 / 112).mean(axis=0), atol=1e-6
                )
    assert contact_sheet(data.manifest, data.table, 6, 1)[0].id == rows[0].id
    assert len(contact_sheet(data.manifest, data.table, 100, 1)) == len(data.manifest.entries)


def test_the_figure_shows_crops_landmarks_and_borders(tmp_path):
    data = make_small_dataset(tmp_path, subjects=1)
    rows = contact_sheet(data.manifest, data.table, 3, 1)
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
    cache = home / "artifacts/features/mine/random.h5"
    without, full = read_features(cache, verify=False, features=False), read_features(cache)
    assert without.features.shape == (0, 512)
    np.testing.assert_array_equal(without.landmarks, full.landmarks)
    assert without.features_sha256 == full.features_sha256
