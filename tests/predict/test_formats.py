"""Formats of predict, read by the readers of each: times to the millisecond, and texts that look like markup stay texts."""

import json
import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pympi
import pytest
import srt
import webvtt

from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.stages.predict.formats import output_formats
from ceflpipe.stages.predict.formats.output_formats import FORMATS, check_formats, parts_of
from ceflpipe.stages.predict.formats.tabular import frames_table, openface_table, read_frames, segments_table
from ceflpipe.stages.predict.formats.video_result import VideoResult
from ceflpipe.stages.predict.outputs import from_record, to_dict
from ceflpipe.stages.predict.prediction import FaceTrack, Prediction, WindowPrediction

LABELS = ('<b>"joy"</b>, & fear', "a --> b", "two\nlines", "ünïcode\x07 😀")
VISIBLE = ('<b>"joy"</b>, & fear', "a --> b", "two lines", "ünïcode\ufffd 😀")
"""The labels in formats that have no line ends or control characters."""


def make_prediction(track, first_frame, edges, spans, missing=()):
    """Return a prediction whose windows are ``spans``: (frames, label or None, probability); clips are halves of a window."""
    windows, begin = [], 0
    for count, label, probability in spans:
        end, half = begin + count, begin + count // 2
        window = WindowPrediction(first_frame + begin, count, edges[begin], edges[end])
        if label is not None:
            rest = (1 - probability) / (len(LABELS) - 1)
            window = replace(
                window, label=label, probabilities={each: probability if each == label else rest for each in LABELS},
                intensity=[(edges[begin], edges[half], 0.25), (edges[half], edges[end], 0.75)], located_time=(edges[half], edges[end]),
            )  # fmt: skip
        windows.append(window)
        begin = end
    count = len(edges) - 1
    status = np.full(count, FrameStatus.DETECTED, np.uint8)
    status[list(missing)] = FrameStatus.MISSING
    status[1] = FrameStatus.INTERPOLATED
    score = np.where(status == FrameStatus.DETECTED, np.linspace(0.9, 0.6, count), np.nan).astype(np.float32)
    box = np.cumsum(np.full((count, 4), 1 / 3), axis=0, dtype=np.float32) + np.float32([10, 20, 60, 80])
    box[list(missing)] = np.nan
    face = FaceTrack(status, score, box, np.repeat(box[:, None, :2], 5, axis=1))
    best = max((window for window in windows if window.label), key=lambda window: window.probabilities[window.label])
    return Prediction(
        Path("x"), count, count - len(missing), 25.0, best.label, best.probabilities, best.intensity, best.located_time, track=track,
        begin=edges[0], end=edges[-1], windows=tuple(windows), first_frame=first_frame, edges=tuple(edges), labels=LABELS, face=face,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Two persons in a video of uneven times, whose name is as unusual as the labels are."""
    folder = tmp_path_factory.mktemp("formats") / "50 % & <more>"
    folder.mkdir()
    video = folder / 'my "film" #1.mp4'
    video.write_bytes(b"")
    times = np.cumsum([0, *[1 / 30] * 40, *[0.2713] * 40, *[1 / 60] * 40]).tolist()
    first = make_prediction(
        1,
        0,
        times,
        [(40, LABELS[0], 0.9), (30, LABELS[1], 0.7), (20, None, 0), (30, LABELS[0], 0.6)],
        missing=range(70, 90),
    )
    second = make_prediction(2, 30, times[30:101], [(35, LABELS[2], 0.8), (35, LABELS[3], 0.5)])
    return VideoResult(video, [first, second], LABELS)


def expected_segments(result):
    """(person, begin, end, label) of every window with a label: no two that touch have the same one here."""
    return [
        (f"person {prediction.track}", window.begin, window.end, window.label)
        for prediction in result.predictions
        for window in prediction.windows
        if window.label
    ]


def write(result, name, folder):
    """Write the files of a format as predict does, and return their paths."""
    paths = []
    for part in FORMATS[name].parts:
        target = folder / f"video.cefl{part.suffix}"
        part.write(result, target, target)
        paths.append(target)
    return paths


# ---- tables


def test_tables_have_the_same_values_as_csv_and_parquet(result, tmp_path):
    frames, parts = (
        read_frames(write(result, "csv", tmp_path)[0]),
        pd.read_csv(tmp_path / "video.cefl.segments.csv"),
    )
    for path, table in zip(write(result, "parquet", tmp_path), (frames, parts), strict=True):
        stored = pd.read_parquet(path)
        assert stored.columns.tolist() == table.columns.tolist()
        for column in table:
            if stored[column].dtype.kind in "if":
                np.testing.assert_allclose(stored[column], table[column], rtol=1e-6)
            else:
                assert stored[column].tolist() == table[column].astype(object).fillna("").tolist()
    assert len(frames) == 120 + 70
    assert set(frames["video"]) == {'my "film" #1.mp4'}
    for prediction in result.predictions:
        rows = frames[frames["track"] == prediction.track]
        assert rows["time"].tolist() == list(prediction.edges[:-1])
        assert rows["frame"].tolist() == list(
            range(prediction.first_frame, prediction.first_frame + prediction.num_frames)
        )
        assert rows[["x1", "y1", "x2", "y2"]].to_numpy(np.float32) == pytest.approx(prediction.face.box, nan_ok=True)
    actual = list(
        zip("person " + parts["track"].astype(str), parts["begin"], parts["end"], parts["label"], strict=True)
    )
    assert [(row[0], row[3]) for row in actual] == [(row[0], row[3]) for row in expected_segments(result)]
    np.testing.assert_allclose([row[1:3] for row in actual], [row[1:3] for row in expected_segments(result)])
    assert parts["confidence"].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.8, 0.5])
    assert parts["frames"].tolist() == [40, 30, 30, 35, 35]
    assert parts["intensity"].tolist() == pytest.approx(
        [0.5, 0.5, 0.5, (17 * 0.25 + 18 * 0.75) / 35, (17 * 0.25 + 18 * 0.75) / 35]
    )


def test_a_prediction_is_the_same_again_from_its_json_and_its_table(result, tmp_path):
    """So that a format can be made later: every file comes out the same, byte for byte."""
    table = read_frames(write(result, "csv", tmp_path)[0])
    again = []
    for prediction in result.predictions:
        record = json.loads(json.dumps(to_dict(prediction, LABELS), allow_nan=False))
        again.append(from_record(record, table[table["track"] == prediction.track], LABELS))
        assert again[-1] == prediction
        for name in ("frame_status", "score", "box", "landmarks"):
            np.testing.assert_array_equal(getattr(again[-1].face, name), getattr(prediction.face, name))
    for name in ("csv", "parquet", "eaf", "boris", "vtt", "srt", "openface"):
        before = [path.read_bytes() for path in write(result, name, tmp_path)]
        assert [path.read_bytes() for path in write(replace(result, predictions=again), name, tmp_path)] == before


def test_times_are_read_as_they_were_written(tmp_path):
    """Every bit of them, also by a pandas before 3, whose fast parser is off by one in some."""
    times = np.random.default_rng(0).uniform(0, 4000, 20_000)
    pd.DataFrame({"time": times}).to_csv(tmp_path / "t.csv", index=False)
    assert read_frames(tmp_path / "t.csv")["time"].tolist() == times.tolist()


def test_openface_columns_come_first_and_every_frame_has_a_row(result, tmp_path):
    (path,) = write(result, "openface", tmp_path)
    assert path.read_text().startswith("frame,face_id,timestamp,confidence,success,label,probability,intensity,")
    table = pd.read_csv(path)
    assert len(table) == 190
    assert table["frame"].is_monotonic_increasing
    one = table[table["face_id"] == 0]
    first = result.predictions[0]
    assert one["frame"].tolist() == list(range(1, 121))
    np.testing.assert_allclose(one["timestamp"], first.edges[:-1])
    assert (one["success"] == 0).tolist() == [70 <= frame < 90 for frame in range(120)]
    assert (one["confidence"][one["success"] == 0] == 0).all()
    scores = first.face.score
    assert one["confidence"].iloc[1] == pytest.approx(min(scores[0], scores[2]))  # interpolated
    assert one["confidence"].iloc[[0, 119]].tolist() == pytest.approx(scores[[0, 119]].tolist())
    np.testing.assert_allclose(one["face_width"], first.face.box[:, 2] - first.face.box[:, 0], rtol=1e-5)
    assert table[table["face_id"] == 1]["frame"].iloc[0] == 31


def test_tables_of_a_head_without_intensity(result):
    plain = replace(
        result.predictions[0], windows=tuple(replace(w, intensity=[], located_time=None) for w in result.predictions[0].windows)
    )  # fmt: skip
    table = segments_table(replace(result, predictions=[plain]))
    assert table["intensity"].isna().all()
    assert openface_table(replace(result, predictions=[plain]))["intensity"].isna().all()
    assert plain.segments()["label"].tolist() == [LABELS[0], LABELS[1], LABELS[0]]


# ---- ELAN


REQUIRED, OPTIONAL = True, False
EAF_ELEMENTS = {
    "ANNOTATION_DOCUMENT": (
        {"DATE": ("dateTime", REQUIRED), "AUTHOR": ("string", REQUIRED), "VERSION": ("string", REQUIRED), "FORMAT": ("string", OPTIONAL)},
        r"HEADER TIME_ORDER (TIER )*(LINGUISTIC_TYPE )*(LOCALE )*(LANGUAGE )*(CONSTRAINT )*(CONTROLLED_VOCABULARY )*",
    ),
    "HEADER": ({"MEDIA_FILE": ("string", OPTIONAL), "TIME_UNITS": ("units", OPTIONAL)}, r"(MEDIA_DESCRIPTOR )*(PROPERTY )*"),
    "MEDIA_DESCRIPTOR": (
        {"MEDIA_URL": ("anyURI", REQUIRED), "RELATIVE_MEDIA_URL": ("anyURI", OPTIONAL), "MIME_TYPE": ("string", REQUIRED)}, r"",
    ),
    "PROPERTY": ({"NAME": ("string", OPTIONAL)}, None),
    "TIME_ORDER": ({}, r"(TIME_SLOT )*"),
    "TIME_SLOT": ({"TIME_SLOT_ID": ("ID", REQUIRED), "TIME_VALUE": ("unsignedInt", OPTIONAL)}, r""),
    "TIER": (
        {"TIER_ID": ("string", REQUIRED), "PARTICIPANT": ("string", OPTIONAL), "ANNOTATOR": ("string", OPTIONAL), "LINGUISTIC_TYPE_REF": ("string", REQUIRED)},
        r"(ANNOTATION )*",
    ),
    "ANNOTATION": ({}, r"ALIGNABLE_ANNOTATION "),
    "ALIGNABLE_ANNOTATION": (
        {"ANNOTATION_ID": ("ID", REQUIRED), "TIME_SLOT_REF1": ("IDREF", REQUIRED), "TIME_SLOT_REF2": ("IDREF", REQUIRED), "CVE_REF": ("string", OPTIONAL)},
        r"ANNOTATION_VALUE ",
    ),
    "ANNOTATION_VALUE": ({}, None),
    "LINGUISTIC_TYPE": (
        {"LINGUISTIC_TYPE_ID": ("string", REQUIRED), "TIME_ALIGNABLE": ("boolean", OPTIONAL), "GRAPHIC_REFERENCES": ("boolean", OPTIONAL), "CONTROLLED_VOCABULARY_REF": ("string", OPTIONAL)},
        r"",
    ),
    "LANGUAGE": ({"LANG_ID": ("ID", REQUIRED), "LANG_DEF": ("string", OPTIONAL), "LANG_LABEL": ("string", OPTIONAL)}, r""),
    "CONTROLLED_VOCABULARY": ({"CV_ID": ("string", REQUIRED)}, r"(DESCRIPTION )*(CV_ENTRY_ML )*"),
    "DESCRIPTION": ({"LANG_REF": ("IDREF", REQUIRED)}, None),
    "CV_ENTRY_ML": ({"CVE_ID": ("string", REQUIRED)}, r"(CVE_VALUE )+"),
    "CVE_VALUE": ({"LANG_REF": ("IDREF", REQUIRED), "DESCRIPTION": ("string", OPTIONAL)}, None),
}  # fmt: skip
"""Attributes and content of the elements that are written, as the schema of EAF 2.8 (May 2014) has them; None: text."""
EAF_KEYS = {
    "TIER/@TIER_ID": (), "LINGUISTIC_TYPE/@LINGUISTIC_TYPE_ID": ("TIER/@LINGUISTIC_TYPE_REF",),
    "CONTROLLED_VOCABULARY/@CV_ID": ("LINGUISTIC_TYPE/@CONTROLLED_VOCABULARY_REF",),
    "TIME_ORDER/TIME_SLOT/@TIME_SLOT_ID": (
        "TIER/ANNOTATION/ALIGNABLE_ANNOTATION/@TIME_SLOT_REF1", "TIER/ANNOTATION/ALIGNABLE_ANNOTATION/@TIME_SLOT_REF2",
    ),
    "LANGUAGE/@LANG_ID": ("CONTROLLED_VOCABULARY/DESCRIPTION/@LANG_REF", "CONTROLLED_VOCABULARY/CV_ENTRY_ML/CVE_VALUE/@LANG_REF"),
    "CONTROLLED_VOCABULARY/CV_ENTRY_ML/@CVE_ID": ("TIER/ANNOTATION/ALIGNABLE_ANNOTATION/@CVE_REF",),
}  # fmt: skip
"""xsd:key of the same schema, and the xsd:keyref that refer to each; the last of CVE_REF is what its comments ask for."""
EAF_TYPES = {
    "string": r"(?s).*", "ID": r"[A-Za-z_][\w.-]*", "IDREF": r"[A-Za-z_][\w.-]*", "unsignedInt": r"\d{1,9}", "boolean": "true|false",
    "dateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", "units": "milliseconds|NTSC-frames|PAL-frames",
    "anyURI": r"[A-Za-z0-9./:%~_,;=@!$'()*+-]+",
}  # fmt: skip


def eaf_problems(root):
    """Return what EAF's schema would refuse in a document."""
    problems, ids, references = [], [], []
    for element in root.iter():
        if element.tag not in EAF_ELEMENTS:
            problems.append(f"element {element.tag}")
            continue
        attributes, content = EAF_ELEMENTS[element.tag]
        given = {name: value for name, value in element.attrib.items() if "XMLSchema-instance" not in name}
        problems += [
            f"{element.tag} without {name}"
            for name, (_, required) in attributes.items()
            if required and name not in given
        ]
        for name, value in given.items():
            kind = attributes.get(name, ("none", False))[0]
            if not re.fullmatch(EAF_TYPES.get(kind, "(?!)"), value):
                problems.append(f"{element.tag} {name}={value!r}")
            (ids if kind == "ID" else references if kind == "IDREF" else []).append(value)
        if content is None:
            problems += [f"{element.tag} has elements"] * bool(len(element))
        elif not re.fullmatch(content, "".join(f"{child.tag} " for child in element)) or (element.text or "").strip():
            problems.append(f"content of {element.tag}")
    problems += [f"id {value} twice" for value, count in Counter(ids).items() if count > 1]
    problems += [f"reference to {value}" for value in set(references) - set(ids)]
    for key, keyrefs in EAF_KEYS.items():
        values = attribute_values(root, key)
        problems += [f"{key} twice"] * (len(set(values)) < len(values))
        problems += [
            f"{keyref} is no {key}" for keyref in keyrefs if not set(attribute_values(root, keyref)) <= set(values)
        ]
    return problems


def attribute_values(root, path):
    elements, _, name = path.rpartition("/@")
    return [element.get(name) for element in root.findall(elements) if element.get(name) is not None]


def test_eaf_is_valid_and_links_the_video(result, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (path,) = write(result, "eaf", folder)
    root = ElementTree.parse(path).getroot()
    assert root.tag == "ANNOTATION_DOCUMENT"
    assert eaf_problems(root) == []
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    assert unquote(urlparse(media.get("MEDIA_URL")).path) == str(result.video)
    assert (folder / unquote(media.get("RELATIVE_MEDIA_URL"))).samefile(result.video)
    assert media.get("MIME_TYPE") == "video/mp4"
    times = [int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")]
    assert times == sorted(times)
    for change in ("TIER_ID", "TIME_SLOT_ID", "CVE_ID"):  # the check sees what it should
        next(element for element in root.iter() if change in element.attrib).attrib.pop(change)
        assert eaf_problems(root)


@pytest.mark.filterwarnings("error")
def test_eaf_has_two_tiers_a_person_with_the_segments_and_the_intensity(result, tmp_path):
    (path,) = write(result, "eaf", tmp_path)
    document = pympi.Elan.Eaf(str(path))
    assert sorted(document.get_tier_names()) == ["person 1", "person 1 intensity", "person 2", "person 2 intensity"]
    actual = [
        (person, begin, end, value)
        for person in ("person 1", "person 2")
        for begin, end, value in sorted(document.get_annotation_data_for_tier(person))
    ]
    assert actual == [
        (person, round(1000 * begin), round(1000 * end), VISIBLE[LABELS.index(label)])
        for person, begin, end, label in expected_segments(result)
    ]
    entries = document.get_cv_entries("expression").values()
    assert [values[0][0] for values, _ in entries] == list(VISIBLE)
    for prediction in result.predictions:
        clips = [(begin, end, weight) for window in prediction.windows for begin, end, weight in window.intensity]
        actual = sorted(document.get_annotation_data_for_tier(f"person {prediction.track} intensity"))
        assert [(begin, end, float(value)) for begin, end, value in actual] == [
            (round(1000 * begin), round(1000 * end), weight) for begin, end, weight in clips
        ]
    assert document.get_parameters_for_tier("person 2")["PARTICIPANT"] == "person 2"


def test_eaf_of_a_folder_of_images_links_nothing(result, tmp_path):
    (path,) = write(replace(result, video=tmp_path), "eaf", tmp_path)
    assert ElementTree.parse(path).find("HEADER/MEDIA_DESCRIPTOR") is None


# ---- BORIS


def test_a_boris_project_is_what_boris_opens(result, tmp_path):
    """The rules are those of open_project_json, convert_time_to_decimal, full_path and check_state_events_obs of BORIS 8 and 10.

    Keys that they, and the window of an observation, read without a default have to be there.
    """
    folder = tmp_path / "results"
    folder.mkdir()
    path = write(result, "boris", folder)[0]
    project = json.loads(path.read_text(encoding="utf-8"))
    assert tuple(map(int, project["project_format_version"].split("."))) == (
        7,
        0,
    )  # nothing to convert, nothing too new
    assert {
        "time_format",
        "project_date",
        "project_name",
        "project_description",
        "coding_map",
        "behavioral_categories_config",
    } <= set(project)
    assert [(b["code"], b["type"], b["modifiers"]) for b in project["behaviors_conf"].values()] == [
        (label, "State event", {}) for label in VISIBLE
    ]
    keys = [behavior["key"] for behavior in project["behaviors_conf"].values()]
    assert len(set(keys)) == 4
    persons = [subject["name"] for subject in project["subjects_conf"].values()]
    assert persons == ["person 1", "person 2"]
    ((name, observation),) = project["observations"].items()
    assert name == 'my "film" #1'
    assert observation["type"] == "MEDIA"
    (video,) = observation["file"]["1"]
    assert (path.parent / video).samefile(result.video)
    for key in ("length", "fps", "hasVideo", "hasAudio", "display"):
        assert set(observation["media_info"][key]) == {video}
    assert set(observation["media_info"]["offset"]) == set(observation["file"])
    events = [[Decimal(event[0]).quantize(Decimal(".001")), *event[1:]] for event in observation["events"]]
    assert events == sorted(events, key=lambda event: event[:3])
    actual = []
    for person in persons:
        started = {}
        for time, subject, code, modifier, _, frame in events:
            assert not modifier
            if subject != person:
                continue
            if code in started:
                actual.append((person, *started.pop(code), time, frame, code))
            else:
                started[code] = (time, frame)
        assert not started, "a state that never stops"
    frame_times = {frame: time for p in result.predictions for frame, time in enumerate(p.edges, start=p.first_frame)}
    assert sorted(
        (person, round(1000 * begin), round(1000 * end), code) for person, begin, _, end, _, code in actual
    ) == sorted(
        (person, round(1000 * begin), round(1000 * end), VISIBLE[LABELS.index(label)])
        for person, begin, end, label in expected_segments(result)
    )
    for _, begin, first, end, last, _ in actual:
        assert (frame_times[first], frame_times[last]) == pytest.approx((float(begin), float(end)), abs=6e-4)


def test_a_boris_sheet_has_the_events_of_the_project(result, tmp_path):
    """Read as load_observations_from_spreadsheet does."""
    project, sheet = write(result, "boris", tmp_path)
    table = pd.read_excel(sheet, sheet_name=0, engine="openpyxl")
    table.columns = table.columns.str.upper()
    rows = [
        [row[label] if str(row[label]) != "nan" else "" for label in ("TIME", "SUBJECT", "CODE", "MODIFIER", "COMMENT")]
        for _, row in table.iterrows()
    ]
    (observation,) = json.loads(project.read_text())["observations"].values()
    assert rows == [event[:5] for event in observation["events"]]


# ---- subtitles


def test_webvtt_has_a_cue_per_segment(result, tmp_path):
    (path,) = write(result, "vtt", tmp_path)
    captions = webvtt.read(path)
    expected = sorted(expected_segments(result), key=lambda segment: segment[1])
    assert [
        (caption.start_in_seconds * 1000 + caption.start_time.milliseconds, caption.voice) for caption in captions
    ] == [(round(1000 * begin), person) for person, begin, _, _ in expected]
    texts = ['&lt;b&gt;"joy"&lt;/b&gt;, &amp; fear', "a --&gt; b", "two lines", "ünïcode\ufffd 😀"]
    for caption, (person, _, end, label) in zip(captions, expected, strict=True):
        assert caption.end_in_seconds * 1000 + caption.end_time.milliseconds == round(1000 * end)
        assert caption.raw_text.startswith(f"<v {person}>{person}: {texts[LABELS.index(label)]} ")
    lines = path.read_text(encoding="utf-8").split("\n")
    assert sum("-->" in line for line in lines) == len(expected)


def test_srt_has_a_cue_per_segment(result, tmp_path):
    (path,) = write(result, "srt", tmp_path)
    actual = list(srt.parse(path.read_text(encoding="utf-8"), ignore_errors=False))
    expected = sorted(expected_segments(result), key=lambda segment: segment[1])
    assert [cue.index for cue in actual] == list(range(1, len(expected) + 1))
    percent = {0.9: 90, 0.7: 70, 0.6: 60, 0.8: 80, 0.5: 50}
    for cue, (person, begin, end, label) in zip(actual, expected, strict=True):
        times = tuple(round(time.total_seconds() * 1000) for time in (cue.start, cue.end))
        assert times == (round(1000 * begin), round(1000 * end))
        text = VISIBLE[LABELS.index(label)].replace("<", "‹").replace(">", "›")
        assert cue.content.startswith(f"{person}: {text} ")
        assert int(cue.content.split()[-2]) in percent.values()


def test_a_single_face_is_not_named_and_times_may_be_hours(result, tmp_path):
    late = replace(result.predictions[0], edges=tuple(time + 360_000.0004 for time in result.predictions[0].edges))
    windows = tuple(
        replace(w, begin=w.begin + 360_000.0004, end=w.end + 360_000.0004, intensity=[]) for w in late.windows
    )
    alone = replace(result, predictions=[replace(late, windows=windows)])
    (path,) = write(alone, "srt", tmp_path)
    assert path.read_text(encoding="utf-8").startswith(
        '1\n100:00:00,000 --> 100:00:01,334\n‹b›"joy"‹/b›, & fear 90 %\n'
    )
    (vtt,) = write(alone, "vtt", tmp_path)
    assert webvtt.read(vtt)[0].start == "100:00:00.000"


# ---- the registry


def test_formats_that_do_not_exist_or_cannot_be_written_are_refused(monkeypatch):
    with pytest.raises(CeflError, match=r"--format elan: no such format;.* known: csv, parquet"):
        check_formats(["csv", "elan"])
    monkeypatch.setattr(output_formats.check_parquet.__globals__["importlib"].util, "find_spec", lambda name: None)
    with pytest.raises(CeflError, match=r"pip install 'ceflpipe\[parquet\]'"):
        check_formats(["parquet"])
    check_formats([name for name in FORMATS if name != "parquet"])


def test_every_file_has_a_name_of_its_own():
    suffixes = [part.suffix for part in parts_of(tuple(FORMATS))]
    assert len(set(suffixes)) == len(suffixes)
    assert not {".json"} & set(suffixes)
    assert parts_of(()) == parts_of(("json",)) == [output_formats.FRAMES_CSV]


def test_tables_take_names_that_are_no_text(result, tmp_path):
    named = replace(result, video=tmp_path / "caf\udce9\n.mp4")
    named.video.write_bytes(b"")
    assert set(frames_table(named)["video"]) == {"caf\\xe9\n.mp4"}
    for name in ("csv", "parquet", "eaf", "boris", "vtt", "srt", "openface"):
        write(named, name, tmp_path)
    document = ElementTree.parse(tmp_path / "video.cefl.eaf").getroot()
    assert eaf_problems(document) == []
    assert document.find("HEADER/MEDIA_DESCRIPTOR").get("RELATIVE_MEDIA_URL") == "./caf%E9%0A.mp4"
