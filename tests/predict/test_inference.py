"""Sliding-window inference: windows, their mean, and the outputs per frame."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import make_small_dataset, train
from hypothesis import given
from hypothesis import strategies as st

from ceflpipe.cache.features import FrameStatus, VideoFeatures
from ceflpipe.stages.heads.clip_sampling import clip_frame_spans, sample_clips_test
from ceflpipe.stages.heads.layers import BatchedDropout
from ceflpipe.stages.heads.run_io import Run
from ceflpipe.stages.predict.inference import WINDOW_STRIDE, Predictor, window_starts
from ceflpipe.stages.predict.outputs import to_dict, to_frame
from ceflpipe.stages.predict.prediction import frame_table, segments
from ceflpipe.stages.predict.results import output_stems
from ceflpipe.stages.slots import NUM_SLOTS

LABELS = ("anger", "fear", "joy")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    data = make_small_dataset(tmp_path_factory.mktemp("data"), with_videos=False)
    return Predictor(train(data, "cefl", epochs=4), "cpu")


def test_the_temperature_is_taken_for_each_model_before_their_mean(predictor):
    """The oracle divides the logits of each model by it; a prediction says which it was."""
    run, long = predictor.run, video(90)
    raw = [Predictor(_only(run, m), "cpu")(Path("v.mp4"), long) for m in range(len(run.config["models"]))]
    assert len(raw) > 1
    parts = np.log([[each.probabilities[label] for label in LABELS] for each in raw]) / 0.1
    expected = (np.exp(parts) / np.exp(parts).sum(axis=1, keepdims=True)).mean(axis=0)
    of_mean = np.mean([[each.probabilities[label] for label in LABELS] for each in raw], axis=0) ** 10
    assert np.abs(of_mean / of_mean.sum() - expected).max() > 0.001  # the order matters here
    calibrated = Predictor(run, "cpu", 0.1)(Path("v.mp4"), long)
    assert list(calibrated.probabilities.values()) == pytest.approx(expected, abs=1e-4)
    assert (calibrated.temperature, raw[0].temperature) == (0.1, None)
    assert to_dict(calibrated, LABELS)["temperature"] == 0.1


def _only(run, m):
    """Return the run with one of its models alone."""
    head = run.head().eval()
    for module in head.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(parameter[[m]]))

    class One(Run):
        def head(self):
            return head

    return One(run.path, run.config | {"models": [run.config["models"][m]]}, run.metrics)


def video(frames, fps=20.0, missing=(), status="ok"):
    random = np.random.default_rng(frames)
    statuses = np.full(frames, FrameStatus.DETECTED, np.uint8)
    statuses[list(missing)] = FrameStatus.MISSING
    box, landmarks = np.tile(np.float32([1, 1, 9, 9]), (frames, 1)), np.ones((frames, 5, 2), np.float32)
    features = random.normal(size=(frames, 512)).astype(np.float16)
    score = np.ones(frames, np.float32)
    return VideoFeatures(
        "v",
        features,
        np.arange(frames) / fps,
        statuses,
        np.zeros(frames, np.uint8),
        score,
        box,
        landmarks,
        fps,
        frames,
        10,
        10,
        "",
        "",
        status,
        "the note",
    )


@given(st.integers(1, 5000))
def test_windows_cover_every_frame_and_overlap_by_at_least_two_thirds(frames):
    starts, length = window_starts(frames)
    assert length == min(frames, NUM_SLOTS)
    covered = np.zeros(frames, int)
    for start in starts:
        covered[start : start + length] += 1
    assert covered.min() >= 1
    assert starts[-1] + length == frames
    assert all(0 < later - earlier <= WINDOW_STRIDE for earlier, later in itertools.pairwise(starts))


def test_a_window_is_predicted_from_its_frames_alone(predictor):
    long = video(260)
    result = predictor(Path("v.mp4"), long)
    starts, _ = window_starts(260)
    assert [window.first_frame for window in result.windows] == starts
    for window in result.windows:
        frames = torch.from_numpy(long.features[window.first_frame : window.first_frame + NUM_SLOTS]).float()
        clips = frames[sample_clips_test(torch.tensor([NUM_SLOTS]), 7, 5)]
        with torch.no_grad():
            logits = predictor.run.head()(clips[None].expand(3, *clips.shape), BatchedDropout(None)).logits
        expected = torch.softmax(logits, -1).mean(0)[0].tolist()
        assert [window.probabilities[label] for label in LABELS] == pytest.approx(expected, abs=1e-5)
        assert window.label == LABELS[int(np.argmax(expected))]
        first, last = clip_frame_spans(torch.tensor([NUM_SLOTS]), 7)[0][2].tolist()
        assert window.intensity[2][:2] == pytest.approx(
            ((window.first_frame + first) / 20, (window.first_frame + last + 1) / 20)
        )
    mean = np.mean([[window.probabilities[label] for label in LABELS] for window in result.windows], axis=0)
    assert [result.probabilities[label] for label in LABELS] == pytest.approx(mean.tolist())
    best = max(result.windows, key=lambda window: window.probabilities[result.label])
    assert result.located_time == best.located_time
    assert result.aggregation == f"mean of {len(starts)} windows of 105 frames, stride 35"


def test_a_short_video_is_predicted_as_in_the_test_of_the_run(predictor):
    """The only window has the same probabilities as the video."""
    result = predictor(Path("v.mp4"), video(80))
    assert len(result.windows) == 1
    assert result.aggregation == "one window of all frames"
    assert result.full_video_label == result.label
    assert result.windows[0].probabilities == result.probabilities
    assert result.end == pytest.approx(4.0)


def test_the_full_video_label_comes_from_the_first_105_frames(predictor):
    long = video(400)
    assert predictor(Path("v.mp4"), long).full_video_label == predictor(Path("v.mp4"), cut(long, 105)).label


def cut(features, frames):
    arrays = [array[:frames] for array in features.arrays]
    return VideoFeatures("v", *arrays, features.fps, frames, 10, 10, "", "", "ok")


def test_windows_without_a_face_have_no_label(predictor):
    result = predictor(Path("v.mp4"), video(400, missing=range(150, 320)))
    unlabeled = [window.first_frame for window in result.windows if not window.label]
    assert unlabeled == [s for s in window_starts(400)[0] if sum(150 <= f < 320 for f in range(s, s + 105)) > 52.5]
    table = frame_table(result, LABELS)
    assert table["p_joy"].isna().any()
    assert np.isfinite(result.probabilities["joy"])
    # also if stage one gave the video the status no-face
    mostly = predictor(Path("v.mp4"), video(400, missing=range(120, 400), status="no-face"))
    assert not mostly.failure
    assert mostly.full_video_label == ""
    for count in (400, 40):
        no_face = predictor(Path("v.mp4"), video(count, missing=range(count), status="no-face"))
        assert (no_face.failure, no_face.note) == ("the note", "")


def test_a_face_that_is_there_for_a_part_only_is_refused_with_what_predicts_that_part(predictor):
    cure = "; give --all-faces to predict the parts with a face in 15 frames or more"
    leaves = predictor(Path("v.mp4"), video(230, missing=range(40, 190), status="no-face"))
    window = "no 105-frame window has a face in at least half its frames"
    assert (leaves.failure, leaves.note) == (f"the note; {window}{cure}", "")
    short = predictor(Path("v.mp4"), video(100, missing=range(30, 100), status="no-face"))
    assert short.failure == f"the note{cure}"
    glimpse = predictor(Path("v.mp4"), video(100, missing=range(14, 100), status="no-face"))
    assert glimpse.failure == "the note"


def test_a_frame_has_the_mean_of_the_windows_that_cover_it(predictor):
    late = video(260)
    result = predictor(Path("v.mp4"), replace(late, time=late.time + 5), first_frame=100)
    table = frame_table(result, LABELS)
    assert len(table) == 260
    assert table["frame"].iloc[0] == 100
    assert table["time"].iloc[-1] == pytest.approx(359 / 20)
    for frame in (100, 160, 200, 359):
        covering = [w for w in result.windows if w.first_frame <= frame < w.first_frame + 105]
        line = table[table.frame == frame].iloc[0]
        assert line["p_fear"] == pytest.approx(np.mean([w.probabilities["fear"] for w in covering]))
        time = (frame + 0.5) / 20
        weights = [weight for w in covering for begin, end, weight in w.intensity if begin <= time < end]
        assert line["intensity"] == pytest.approx(np.mean(weights)) if weights else np.isnan(line["intensity"])
    for segment in segments(result, LABELS):
        inside = table[(table.time >= segment["begin"] - 1e-9) & (table.time < segment["end"] - 1e-9)]
        probabilities = inside[[f"p_{label}" for label in LABELS]].to_numpy()
        assert (probabilities.argmax(axis=1) == LABELS.index(segment["label"])).all()
        assert segment["confidence"] == pytest.approx(probabilities.max(axis=1).mean())
    assert to_dict(result, LABELS)["path"] == "v.mp4"
    assert to_dict(result, LABELS)["confidence"] == max(result.probabilities.values())


def test_times_are_those_of_the_frames_not_of_a_mean_rate(predictor):
    """A film that shows 100 frames in one second and then 160 frames in 160 seconds."""
    uneven = video(260)
    times = np.concatenate([np.arange(100) / 100, 1 + np.arange(160.0)])
    result = predictor(Path("v.mp4"), replace(uneven, time=times, fps=259 / 160))
    table = frame_table(result, LABELS)
    np.testing.assert_array_equal(table["time"], times)
    ends = np.append(times, times[-1] + 160 / 259)
    spans = clip_frame_spans(torch.tensor([NUM_SLOTS]), 7)[0].tolist()
    for window in result.windows:
        assert (window.begin, window.end) == (times[window.first_frame], ends[window.first_frame + NUM_SLOTS])
        for (first, last), (begin, end, _) in zip(spans, window.intensity, strict=True):
            assert (begin, end) == (times[window.first_frame + first], ends[window.first_frame + last + 1])
    for segment in segments(result, LABELS):
        inside = table[(table.time >= segment["begin"]) & (table.time < segment["end"])]
        probabilities = inside[[f"p_{label}" for label in LABELS]].to_numpy()
        assert (probabilities.argmax(axis=1) == LABELS.index(segment["label"])).all()
    assert (segments(result, LABELS)[0]["begin"], segments(result, LABELS)[-1]["end"]) == (0, ends[-1])
    assert "edges" not in to_dict(result, LABELS)


def test_videos_of_the_same_name_get_different_output_files():
    long = Path("n" * 250 + ".mp4")
    names = output_stems([Path("a/x.mp4"), Path("b/x.mp4"), Path("c/X.mp4"), Path("y.mp4"), Path("frames.v1"), long])
    assert names[Path("y.mp4")] == "y"
    assert len({name.lower() for name in names.values()}) == 6
    assert len(names[long]) < 150


def test_the_table_has_a_row_per_video_also_without_a_prediction(predictor):
    table = to_frame(
        [
            to_dict(predictor(Path(name), frames), LABELS)
            for name, frames in (("v.mp4", video(80)), ("w.mp4", video(20, missing=range(20), status="no-face")))
        ],
        LABELS,
    )
    assert table["label"].tolist()[1] == ""
    assert table["failure"].tolist()[1] == "the note"
    assert table[[f"p_{label}" for label in LABELS]].iloc[0].sum() == pytest.approx(1)
