"""A long video is judged window by window, a short one as in the run's own test; nothing is lost in between."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.runs import make_world, train
from hypothesis import given
from hypothesis import strategies as st

from ceflpipe.cache.features import FrameStatus, VideoFeatures
from ceflpipe.stages.heads.clip_sampling import NUM_SLOTS, clip_frame_spans, sample_clips_test
from ceflpipe.stages.heads.layers import BatchedDropout
from ceflpipe.stages.manifest.files import expand_video_paths
from ceflpipe.stages.plots.timeline import downsample, timeline_figure
from ceflpipe.stages.predict.inference import WINDOW_STRIDE, Predictor, window_starts
from ceflpipe.stages.predict.outputs import frame_table, output_stems, segments, to_dict, to_frame

LABELS = ("anger", "fear", "joy")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("world"), films=False)
    return Predictor(train(world, "cefl", epochs=4), "cpu")


def video(frames, fps=20.0, missing=(), status="ok"):
    random = np.random.default_rng(frames)
    statuses = np.full(frames, FrameStatus.DETECTED, np.uint8)
    statuses[list(missing)] = FrameStatus.MISSING
    box, landmarks = np.tile(np.float32([1, 1, 9, 9]), (frames, 1)), np.ones((frames, 5, 2), np.float32)
    features = random.normal(size=(frames, 512)).astype(np.float16)
    return VideoFeatures(
        "v",
        features,
        statuses,
        np.ones(frames, np.float32),
        box,
        landmarks,
        fps,
        frames,
        10,
        10,
        "",
        "",
        status,
        "told so",
    )


@given(st.integers(1, 5000))
def test_windows_leave_no_frame_out_and_overlap_as_stated(frames):
    starts, length = window_starts(frames)
    assert length == min(frames, NUM_SLOTS)
    covered = np.zeros(frames, int)
    for start in starts:
        covered[start : start + length] += 1
    assert covered.min() >= 1
    assert starts[-1] + length == frames
    assert all(0 < later - earlier <= WINDOW_STRIDE for earlier, later in itertools.pairwise(starts))


def test_a_window_says_what_the_models_say_of_its_frames_alone(judge):
    long = video(260)
    said = judge(Path("v.mp4"), long)
    starts, _ = window_starts(260)
    assert [window.first_frame for window in said.windows] == starts
    for window in said.windows:
        frames = torch.from_numpy(long.features[window.first_frame : window.first_frame + NUM_SLOTS]).float()
        clips = frames[sample_clips_test(torch.tensor([NUM_SLOTS]), 7, 5)]
        with torch.no_grad():
            logits = judge.run.head()(clips[None].expand(3, *clips.shape), BatchedDropout(None)).logits
        expected = torch.softmax(logits, -1).mean(0)[0].tolist()
        assert [window.probabilities[label] for label in LABELS] == pytest.approx(expected, abs=1e-5)
        assert window.label == LABELS[int(np.argmax(expected))]
        first, last = clip_frame_spans(torch.tensor([NUM_SLOTS]), 7)[0][2].tolist()
        assert window.intensity[2][:2] == pytest.approx(
            ((window.first_frame + first) / 20, (window.first_frame + last + 1) / 20)
        )
    mean = np.mean([[window.probabilities[label] for label in LABELS] for window in said.windows], axis=0)
    assert [said.probabilities[label] for label in LABELS] == pytest.approx(mean.tolist())
    surest = max(said.windows, key=lambda window: window.probabilities[said.label])
    assert said.located == surest.located
    assert said.rule == f"{len(starts)} windows of 105 frames, 35 apart"


def test_a_short_video_is_judged_as_in_the_runs_own_test(judge):
    """The probabilities are those of a fold's prediction, averaged over the folds; the rule and the windows say so."""
    said = judge(Path("v.mp4"), video(80))
    assert len(said.windows) == 1
    assert said.rule == "the whole video"
    assert said.own_rule == said.label
    assert said.windows[0].probabilities == said.probabilities
    assert said.end == pytest.approx(4.0)


def test_the_runs_own_rule_looks_at_the_first_105_slots_of_a_long_video(judge):
    long = video(400)
    assert judge(Path("v.mp4"), long).own_rule == judge(Path("v.mp4"), cut(long, 105)).label


def cut(one, frames):
    arrays = [getattr(one, name)[:frames] for name in ("features", "frame_status", "score", "box", "landmarks")]
    return VideoFeatures("v", *arrays, one.fps, frames, 10, 10, "", "", "ok")


def test_windows_without_a_face_say_nothing(judge):
    said = judge(Path("v.mp4"), video(400, missing=range(150, 320)))
    silent = [window.first_frame for window in said.windows if not window.label]
    assert silent == [s for s in window_starts(400)[0] if sum(150 <= f < 320 for f in range(s, s + 105)) > 52.5]
    table = frame_table(said, LABELS)
    assert table["p_joy"].isna().any()
    assert np.isfinite(said.probabilities["joy"])
    # also where stage one counts the whole as one without a face
    mostly = judge(Path("v.mp4"), video(400, missing=range(120, 400), status="no-face"))
    assert not mostly.failure
    assert mostly.own_rule == ""
    nobody = judge(Path("v.mp4"), video(400, missing=range(400), status="no-face"))
    assert "no stretch of 105 frames shows the face" in nobody.failure
    assert judge(Path("v.mp4"), video(40, missing=range(40), status="no-face")).failure == "told so"


def test_every_frame_has_the_mean_of_the_windows_that_cover_it(judge):
    said = judge(Path("v.mp4"), video(260), first_frame=100)
    table = frame_table(said, LABELS)
    assert len(table) == 260
    assert table["frame"].iloc[0] == 100
    assert table["second"].iloc[-1] == pytest.approx(359 / 20)
    for frame in (100, 160, 200, 359):
        covering = [w for w in said.windows if w.first_frame <= frame < w.first_frame + 105]
        line = table[table.frame == frame].iloc[0]
        assert line["p_fear"] == pytest.approx(np.mean([w.probabilities["fear"] for w in covering]))
        moment = (frame + 0.5) / 20
        shares = [share for w in covering for begin, end, share in w.intensity if begin <= moment < end]
        assert line["intensity"] == pytest.approx(np.mean(shares)) if shares else np.isnan(line["intensity"])
    for one in segments(said, LABELS):
        inside = table[(table.second >= one["begin"] - 1e-9) & (table.second < one["end"] - 1e-9)]
        leading = inside[[f"p_{label}" for label in LABELS]].to_numpy().argmax(axis=1)
        assert (leading == LABELS.index(one["label"])).all()
    assert to_dict(said, LABELS)["path"] == "v.mp4"


@pytest.mark.parametrize("frames", [80, 900])
def test_the_timeline_shows_the_numbers(judge, frames):
    said = judge(Path("v.mp4"), video(frames))
    table = frame_table(said, LABELS)
    figure = timeline_figure(
        table, LABELS, title="v", rule="", label=said.label, probabilities=said.probabilities, located=said.located,
        faces=[None] * 8, several=len(said.windows) > 1,
    )  # fmt: skip
    figure.canvas.draw()
    steps = {patch.get_label(): patch for axes in figure.axes for patch in axes.patches if hasattr(patch, "get_data")}
    drawn = downsample(table)
    np.testing.assert_allclose(steps["_intensity"].get_data().values, 100 * drawn["intensity"])
    bars = [patch for patch in figure.axes[0].patches if not hasattr(patch, "get_data")]
    assert [bar.get_width() for bar in bars] == pytest.approx([100 * said.probabilities[label] for label in LABELS])
    (box,) = [p for axes in figure.axes for p in axes.patches if p.get_label() == "_located"]
    assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx(said.located)
    if frames > 105:
        below = np.zeros(len(drawn))
        for label in LABELS:
            data = steps[label].get_data()
            np.testing.assert_allclose(data.values - data.baseline, 100 * drawn[f"p_{label}"], atol=1e-9)
            below = data.values
        np.testing.assert_allclose(below, 100, atol=1e-3)


def test_an_hour_is_drawn_by_means():
    table = pd.DataFrame({"second": np.arange(90_000) / 25, "intensity": np.arange(90_000.0)})
    few = downsample(table)
    assert len(few) == 1500
    assert few["intensity"].iloc[0] == pytest.approx(np.arange(60).mean())
    assert few["second"].iloc[1] == pytest.approx(60 / 25)


def test_files_folders_and_patterns(tmp_path):
    for name in ("b/10.mp4", "b/2.mp4", "a.mp4", "pictures/1.jpg", "b/notes.txt", "odd[1].mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [
        str(path.relative_to(tmp_path))
        for path in expand_video_paths([tmp_path / "b", tmp_path / "a.mp4", tmp_path / "*.mp4", tmp_path / "gone.mp4"])
    ]
    assert found == ["b/2.mp4", "b/10.mp4", "a.mp4", "odd[1].mp4", "gone.mp4"]
    assert expand_video_paths([tmp_path / "pictures"]) == [tmp_path / "pictures"]
    assert expand_video_paths([tmp_path / "odd[1].mp4"]) == [tmp_path / "odd[1].mp4"]
    from ceflpipe.cache.errors import CeflError

    (tmp_path / "empty").mkdir()
    for nothing, words in (("empty", "no video in this folder"), ("*.avi", "nothing matches")):
        with pytest.raises(CeflError, match=words):
            expand_video_paths([tmp_path / nothing])


def test_two_videos_of_one_name_get_files_of_their_own():
    names = output_stems([Path("a/x.mp4"), Path("b/x.mp4"), Path("y.mp4"), Path("frames.v1")])
    assert names[Path("y.mp4")] == "y"
    assert len(set(names.values())) == 4


def test_a_line_per_video_also_where_nothing_can_be_said(judge):
    table = to_frame(
        [judge(Path("v.mp4"), video(80)), judge(Path("w.mp4"), video(20, missing=range(20), status="no-face"))], LABELS
    )
    assert table["label"].tolist()[1] == ""
    assert table["failure"].tolist()[1] == "told so"
    assert table[[f"p_{label}" for label in LABELS]].iloc[0].sum() == pytest.approx(1)
