"""Who is who: tracks joined by an identity network, names from a CSV, and the contact sheet to see mistakes on."""

import itertools
import json
import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pandas as pd
import pympi
import pytest
import webvtt
from helpers.onnx_encoders import Graph
from helpers.run_cli import run_cli_in_process
from helpers.video import write_video
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

import ceflpipe
from ceflpipe.cache.errors import CeflError
from ceflpipe.cache.features import FrameStatus
from ceflpipe.stages.align import align_crop
from ceflpipe.stages.encoder.build_onnx import build_onnx_encoder
from ceflpipe.stages.encoder.onnx_card import OnnxOptions
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.tracking import Face
from ceflpipe.stages.predict import predict as predict_stage
from ceflpipe.stages.predict.identity import MAX_CROPS, BestFrames, IdentityNetwork, crop_quality
from ceflpipe.stages.predict.person_names import GroupedTrack, read_person_names
from ceflpipe.stages.predict.persons import assign_persons, cluster, overlaps

CROP = 112
FPS = 25


def vectors(count, groups, noise, seed):
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((groups, 8))
    rows = centers[rng.integers(0, groups, count)] + noise * rng.standard_normal((count, 8))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("thresh", [0.2, 0.5, 0.8])
def test_without_constraints_it_is_average_linkage(seed, thresh):
    """scipy's average linkage of the distances 1 - cosine, cut at 1 - thresh, has the same groups."""
    rows = vectors(25, 4, 0.5, seed)
    groups = cluster(rows @ rows.T, np.eye(25, dtype=bool), thresh)
    distances = squareform(np.maximum(1 - rows @ rows.T, 0), checks=False)
    expected = fcluster(linkage(distances, "average"), 1 - thresh, "distance")
    np.testing.assert_array_equal(groups[:, None] == groups[None], expected[:, None] == expected[None])
    first = [int(np.flatnonzero(groups == group)[0]) for group in range(groups.max() + 1)]
    assert first == sorted(first)  # numbered in order of first appearance


@pytest.mark.parametrize("seed", range(10))
def test_tracks_in_view_at_the_same_time_are_never_one_person(seed):
    rng = np.random.default_rng(seed)
    begins = np.sort(rng.integers(0, 300, 30))
    spans = [(int(begin), int(begin + rng.integers(15, 60))) for begin in begins]
    members = assign_persons(list(vectors(30, 2, 0.1, seed)), spans, 0.3)
    for one, two in zip(*np.nonzero(overlaps(spans)), strict=True):
        assert one == two or members[one].person != members[two].person
    assert overlaps([(0, 10), (10, 20), (9, 11)]).tolist() == [
        [True, False, True], [False, True, True], [True, True, True],
    ]  # fmt: skip


def test_what_is_near_the_threshold_is_unsure():
    def at(degrees):
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    def unsure(*degrees):
        spans = [(20 * i, 20 * i + 20) for i in range(len(degrees))]
        return assign_persons([at(each) for each in degrees], spans, 0.5, margin=0.1)

    assert [(m.person, bool(m.unsure)) for m in unsure(0, 10, 120)] == [(1, False), (1, False), (2, False)]
    near = unsure(0, 59)  # cosine 0.515
    assert [m.person for m in near] == [1, 1]
    assert near[0].unsure == "similarity 0.515 to the rest of person 1, near the threshold 0.500"
    assert near[0].similarity == pytest.approx(np.cos(np.radians(59)))
    apart = unsure(0, 61)  # cosine 0.485
    assert [(m.person, m.unsure) for m in apart] == [
        (1, "may be person 2, similarity 0.485"), (2, "may be person 1, similarity 0.485"),
    ]  # fmt: skip
    between = assign_persons([at(0), at(60), at(30)], [(0, 20), (0, 20), (40, 60)], 0.5)
    assert [(m.person, m.unsure) for m in between] == [(1, ""), (2, ""), (1, "may be person 2, similarity 0.866")]
    alone = assign_persons([at(0), at(0)], [(0, 20), (0, 20)], 0.5)
    assert [(m.person, m.similarity, m.unsure) for m in alone] == [(1, None, ""), (2, None, "")]


def test_without_embeddings_every_track_is_a_person_and_says_that_it_was_not_compared():
    members = assign_persons([None, None, None], [(0, 20), (0, 60), (30, 50)], 0.5)
    assert [m.person for m in members] == [1, 2, 3]
    assert [bool(m.unsure) for m in members] == [True, False, True]  # the second is in view with both others


def test_the_best_frames_are_spread_over_the_track_and_few():
    qualities = np.random.default_rng(0).random(4000) * 0.2 + 0.5
    qualities[1234] = 0.9
    best, cropped = BestFrames(), []
    for frame, quality in enumerate(qualities):
        best.offer(frame, quality, lambda frame=frame: cropped.append(frame) or np.zeros((2, 2, 3), np.uint8))
    assert len(best.frames) in range(MAX_CROPS // 2, MAX_CROPS + 1)
    assert 1234 in best.frames
    assert max(np.diff([0, *best.frames, 4000])) < 2 * 4000 / (MAX_CROPS / 2)
    assert len(cropped) < len(qualities)  # a crop is cut only if it may be needed
    short = BestFrames()
    for frame, quality in ((0, 0.9), (7, 0.2), (14, 0.8)):  # from the side at first
        short.offer(frame, quality)
    assert short.frames == (0, 14)


def test_a_face_from_the_front_large_and_sure_is_better():
    def quality(nose=20.0, score=0.9, side=100.0):
        points = np.float32([[10, 10], [30, 10], [nose, 20], [12, 30], [28, 30]])
        return crop_quality(Face(np.float32([0, 0, side, side]), points, score, FrameStatus.DETECTED))

    assert quality() == pytest.approx(0.9)
    assert quality(nose=25) == quality(nose=15) == pytest.approx(0.45)
    assert quality(nose=30) == 0
    assert quality(side=40) == pytest.approx(0.45)
    assert quality(score=0.5) < quality()


# ---- identity networks


def write_network(path, *, mean=None, size=CROP, own=False, batch="N"):
    """Write a network whose embedding is the crop at 4 x 4 pixels, less ``mean``; ``own``: it takes pixels and scales them itself."""
    graph = Graph()
    x = "pixels"
    if own:
        x = graph.add("Sub", x, graph.constant(np.float32(127.5)))
        x = graph.add("Mul", x, graph.constant(np.float32(1 / 127.5)))
    side = (size if isinstance(size, int) else CROP) // 4
    x = graph.add("Flatten", graph.add("AveragePool", x, kernel_shape=[side, side], strides=[side, side]))
    offset = np.zeros((1, 48), np.float32) if mean is None else mean
    graph.add("Sub", x, graph.constant(offset), name="embedding")
    onnx.save(graph.model((batch, 3, size, size), "embedding"), str(path))
    return path


def pooled(crop):
    """Return what the network of ``write_network`` computes, by OpenCV's average of areas."""
    small = cv2.resize(crop.astype(np.float32), (4, 4), interpolation=cv2.INTER_AREA)
    return ((small - 127.5) / 127.5).transpose(2, 0, 1).ravel()


@pytest.mark.parametrize("options", [{}, {"own": True}, {"batch": 1}, {"size": "S"}, {"size": 64}])
def test_a_network_is_fed_as_insightface_feeds_it(tmp_path, options):
    """RGB, (pixel - 127.5) / 127.5, 112 pixels unless it says otherwise; pixels as they are if it scales them itself."""
    network = IdentityNetwork(write_network(tmp_path / "net.onnx", **options))
    size = options.get("size", CROP) if options.get("size") != "S" else CROP
    assert network.crop_size == size
    crops = np.random.default_rng(0).integers(0, 256, (40, size, size, 3), np.uint8)
    rows = np.stack([pooled(crop) for crop in crops])
    expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(network(crops), expected / np.linalg.norm(expected), atol=1e-4)


def test_an_encoder_file_says_itself_how_it_is_fed_and_what_its_threshold_is(tmp_path):
    raw = write_network(tmp_path / "raw.onnx")
    options = OnnxOptions(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7), color_order="bgr")
    build_onnx_encoder(raw, tmp_path / "card.onnx", "net", options, notes={"person_thresh": "0.77"})
    network = IdentityNetwork(tmp_path / "card.onnx")
    assert network.thresh == 0.77
    assert IdentityNetwork(raw).thresh == 0.4
    crop = np.random.default_rng(0).integers(0, 256, (CROP, CROP, 3), np.uint8)
    small = cv2.resize(crop.astype(np.float32), (4, 4), interpolation=cv2.INTER_AREA) / 255
    expected = ((small - [0.2, 0.3, 0.4]) / [0.5, 0.6, 0.7])[..., ::-1].transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(network(crop[None]), expected / np.linalg.norm(expected), atol=1e-4)


# ---- names


def names_of(tmp_path, text):
    (tmp_path / "names.csv").write_text(text, encoding="utf-8")
    return read_person_names(tmp_path / "names.csv")


TRACKS = [
    GroupedTrack(1, 1, 0, 50),
    GroupedTrack(2, 2, 0, 40),
    GroupedTrack(3, 1, 60, 90),
    GroupedTrack(4, 3, 100, 150),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("person,name\n1,Ada\n2,Bo\n", [(1, "Ada"), (2, "Bo"), (1, "Ada"), (3, "")]),
        ("person;name\n1;Ada\n3;Ada\n", [(1, "Ada"), (2, ""), (1, "Ada"), (1, "Ada")]),  # persons are joined
        ("track,person,name\n3,,Bo\n,2,Bo\n", [(1, ""), (2, "Bo"), (2, "Bo"), (3, "")]),  # a track moves
        ("track,name\n3,Cy\n", [(1, ""), (2, ""), (4, "Cy"), (3, "")]),  # a track that is somebody else
        ("track,name\n1,Ada\n3,Ada\n", [(4, "Ada"), (2, ""), (4, "Ada"), (3, "")]),
        ("video,person,name\nfilm.mp4,1,Ada\nother.mp4,2,Bo\n", [(1, "Ada"), (2, ""), (1, "Ada"), (3, "")]),
        ("Video,Person,Name\n/v/film.mp4,2,Ö\u00e4 \u4e2d\n", [(1, ""), (2, "Öä 中"), (1, ""), (3, "")]),
        ("person,name\n1,\n".replace("1,", '1,"a\nb\x07"'), [(1, "a b\ufffd"), (2, ""), (1, "a b\ufffd"), (3, "")]),
    ],
)  # fmt: skip
def test_names_are_given_join_and_part(tmp_path, text, expected):
    named, problem = names_of(tmp_path, text).assign(Path("/v/film.mp4"), TRACKS)
    assert [tuple(each) for each in named] == expected
    assert problem == ""


def test_names_that_do_not_fit_the_video_are_reported(tmp_path):
    names = names_of(tmp_path, "video,person,name\nfilm.mp4,1,Ada\nfilm.mp4,2,Ada\nfilm.mp4,9,Bo\n")
    _, problem = names.assign(Path("film.mp4"), TRACKS)
    assert "line 4: there is no person 9" in problem
    assert "Ada is the name of two faces that are in view at the same time" in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("person,nome\n1,Ada\n", "unknown column 'nome'; did you mean name?"),
        ("person\n1\n", "the columns are person"),
        ("name\nAda\n", "the columns are name"),
        ("person,name\n1,Ada\n1,Bo\n", "line 3: person 1 has the name Ada on line 2"),
        ("person,name\nx,Ada\n", "line 2: person 'x' is not a number from 1"),
        ("person,name\n0,Ada\n", "line 2: person '0' is not a number from 1"),
        ("person,name\n2,\n", "line 2: no name"),
        ("person,name\n2," + 101 * "x" + "\n", "a name of 101 characters"),
        ("person,track,name\n2,3,Ada\n", "line 2: has both a person and a track"),
        ("person,track,name\n,,Ada\n", "line 2: has neither a person nor a track"),
        ("person,name\n1,Person 2\n", "'Person 2' is what persons without a name"),
        ("person,name\n1,Ada intensity\n", "is what persons without a name and their tiers are called"),
        ('person,name\n1,"=cmd()"\n', "makes it a formula in spreadsheets"),
    ],
)
def test_a_wrong_csv_of_names_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(CeflError, match=re.escape(message)) as caught:
        names_of(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "names.csv" in str(caught.value)


# ---- a video_folder of two people with cuts


SHOTS = ("a", "b", "a", "-", "b", "ab", "a")


@pytest.fixture(scope="module")
def video_folder(tmp_path_factory, photographs):
    """A video_folder of two people in shots of 20 frames: alone, away, side by side; and a network that tells their faces apart."""
    folder = tmp_path_factory.mktemp("who")
    detector, six = RetinaFace(), photographs["six"]
    boxes = detector(six).boxes
    heads = []
    for x1, y1, x2, y2 in boxes[np.argsort(boxes[:, 0])][[0, 2]]:
        half, x, y = int(1.1 * (x2 - x1)), int(x1 + x2) // 2, int(y1 + y2) // 2
        heads.append(cv2.resize(six[y - half : y + half, max(0, x - half) : x + half], (200, 200)))
    background = np.add.outer(np.arange(240), np.arange(440)).astype(np.uint8)[..., None].repeat(3, 2) // 4
    frames = []
    for number, shot in enumerate(SHOTS):
        for i in range(20):
            frame = 160 - background if number % 2 else 40 + background
            for name, head, left in zip("ab", heads, (10, 230), strict=True):
                if name in shot:
                    frame[20:220, left + i // 2 : left + i // 2 + 200] = np.clip(
                        head * (0.8 + 0.1 * (number % 3)), 0, 255
                    )
            frames.append(frame)
    write_video(folder / "film.mp4", frames, FPS)
    crops = [align_crop(head, detector(head).landmarks[0], CROP) for head in heads]
    mean = np.mean([pooled(crop) for crop in crops], axis=0, dtype=np.float32)[None]
    write_network(folder / "who.onnx", mean=mean)
    return folder


def predict(folder, *arguments, check=True):
    return run_cli_in_process("predict", "film.mp4", *arguments, cwd=folder, check=check)


WHO = ("--all-faces", "--identity-network", "who.onnx")
EVERY = "csv,json,eaf,boris,vtt,srt,openface,html,persons"
EXPECTED = ["a", "b", "a", "b", "a", "b", "a"]
"""Who is in each track, in order of appearance."""


@pytest.fixture(scope="module")
def joined(video_folder):
    done = predict(video_folder, *WHO, "--out", "joined", "--format", EVERY)
    return json.loads((video_folder / "joined/film.cefl.json").read_text()), done


def test_persons_keep_their_numbers_across_cuts_and_absences(joined):
    records, done = joined
    assert len(records) == len(EXPECTED)
    persons = [record["person"] for record in records]
    order = {"a": 1, "b": 2}
    expected = [order[name] for name in EXPECTED]
    # the two tracks of the shot side by side begin in one frame, the larger face first
    expected[4:6] = [1, 2] if records[4]["begin"] < records[5]["begin"] or persons[4] == 1 else [2, 1]
    assert persons == expected
    assert all(record["similarity"] > 0.5 and not record["unsure"] for record in records)
    assert all(record["faces"] for record in records)
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("film.mp4")]
    assert [(row[-4:-1], row[-1]) for row in rows] == [
        ([str(r["track"]), "of", "7"], str(r["person"])) for r in records
    ]
    assert "may be of another person" not in done.stderr


def test_tables_tiers_cues_subjects_and_faces_are_those_of_persons(video_folder, joined):
    records, _ = joined
    frames = pd.read_csv(video_folder / "joined/film.cefl.csv")
    assert frames.groupby("track")["person"].unique().str[0].tolist() == [record["person"] for record in records]
    parts = pd.read_csv(video_folder / "joined/film.cefl.segments.csv")
    assert set(zip(parts["track"], parts["person"], strict=True)) == {(r["track"], r["person"]) for r in records}
    openface = pd.read_csv(video_folder / "joined/film.cefl.openface.csv")
    assert not openface.duplicated(["frame", "face_id"]).any()
    assert sorted(set(openface["face_id"])) == [0, 1]
    eaf = pympi.Elan.Eaf(str(video_folder / "joined/film.cefl.eaf"))
    assert list(eaf.get_tier_names()) == ["person 1", "person 1 intensity", "person 2", "person 2 intensity"]
    for tier in eaf.get_tier_names():
        spans = sorted(each[:2] for each in eaf.get_annotation_data_for_tier(tier))
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))
    assert len(eaf.get_annotation_data_for_tier("person 1")) >= 4
    project = json.loads((video_folder / "joined/film.cefl.boris").read_text())
    assert [each["name"] for each in project["subjects_conf"].values()] == ["person 1", "person 2"]
    voices = {cue.voice for cue in webvtt.read(str(video_folder / "joined/film.cefl.vtt"))}
    assert voices == {"person 1", "person 2"}
    table = pd.read_csv(video_folder / "joined/predictions.csv")
    assert table["person"].tolist() == [record["person"] for record in records]


def test_the_contact_sheet_shows_the_faces_of_every_track_of_a_person(video_folder, joined):
    records, _ = joined
    sheet = cv2.imread(str(video_folder / "joined/film.cefl.persons.png"))
    heading, card = 76, 96 + 20 + 2 * 8 + 16
    assert sheet.shape[1] == 16 + 4 * (3 * 96 + 2 * 8 + 16)
    assert sheet.shape[0] == 2 * (heading + card)
    own = [record["person"] for record in records]
    for person in (1, 2):
        top = (person - 1) * (heading + card) + heading + 8
        for column in range(own.count(person)):
            left = 16 + column * (3 * 96 + 2 * 8 + 16) + 8
            assert sheet[top : top + 96, left : left + 288].std() > 20
    assert sheet[heading : heading + card, -300:].std() > 5  # four tracks of the first person, three of the second
    assert sheet[2 * heading + card + 8 : 2 * (heading + card) - 30, -300:].std() == 0


NAMES = 'person,name\n1,"<b>Ada</b>, ""A"" & --> Ü"\n2,Bo\n'


def test_names_are_in_all_files_without_predicting_again_as_if_they_had_been_given_at_once(
    video_folder, joined, monkeypatch
):
    (video_folder / "names.csv").write_text(NAMES, encoding="utf-8")
    who = (*WHO, "--people", "names.csv", "--format", EVERY)
    predict(video_folder, *who, "--out", "fresh")
    predict(video_folder, *WHO, "--out", "later", "--format", EVERY)
    with monkeypatch.context() as patch:
        patch.setattr(predict_stage, "track_faces", None)  # would fail
        done = predict(video_folder, *who, "--out", "later")
    files = sorted(path.name for path in (video_folder / "fresh").glob("film.*"))
    assert len(files) == 11
    for name in files:
        fresh, later = ((video_folder / folder / name).read_bytes() for folder in ("fresh", "later"))
        assert fresh.replace(b"fresh", b"later") == later, name
    name = '<b>Ada</b>, "A" & --> Ü'
    assert set(pd.read_csv(video_folder / "later/film.cefl.csv")["name"]) == {name, "Bo"}
    assert set(pd.read_csv(video_folder / "later/film.cefl.openface.csv")["name"]) == {name, "Bo"}
    eaf = pympi.Elan.Eaf(str(video_folder / "later/film.cefl.eaf"))
    assert list(eaf.get_tier_names()) == [name, f"{name} intensity", "Bo", "Bo intensity"]
    vtt = (video_folder / "later/film.cefl.vtt").read_text(encoding="utf-8")
    assert "<v &lt;b&gt;Ada&lt;/b&gt;" in vtt
    assert all(line.count("-->") == 1 and line[0].isdigit() for line in vtt.splitlines() if "-->" in line)
    page = (video_folder / "later/film.cefl.html").read_text(encoding="utf-8")
    assert "<b>Ada" not in page
    assert "Bo" in done.stdout
    # without names again
    predict(video_folder, *WHO, "--out", "later", "--format", EVERY)
    assert (video_folder / "later/film.cefl.eaf").read_bytes().count(b"person 1") > 0


def test_without_a_network_tracks_are_persons_and_the_command_says_so(video_folder):
    done = predict(video_folder, "--all-faces", "--json")
    assert [record["person"] for record in json.loads(done.stdout)] == list(range(1, len(EXPECTED) + 1))
    done = predict(video_folder, "--all-faces")
    assert "tracks are not joined across cuts and absences, so each is a person of its own" in done.stderr
    assert "--identity-network" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--identity-network", "who.onnx"), "give --all-faces too"),
        (("--all-faces", "--identity-network", "gone.onnx"), "gone.onnx: no such file"),
        (("--all-faces", "--identity-network", "film.mp4"), "--identity-network film.mp4"),
        (("--all-faces", "--person-thresh", "0.5"), "give --identity-network FILE too"),
        ((*WHO, "--person-thresh", "1.5"), "a cosine similarity is in -1..1"),
        (("--people", "gone.csv"), "--people gone.csv: no such file"),
    ],
)
def test_wrong_options_are_one_line(video_folder, arguments, message):
    done = predict(video_folder, *arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_python_gives_what_the_command_gives(video_folder, joined):
    (video_folder / "bo.csv").write_text("person,name\n2,Bo\n")
    predictions = ceflpipe.predict(
        "faces", [video_folder / "film.mp4"], all_faces=True, identity_network=video_folder / "who.onnx",
        people=video_folder / "bo.csv", device="cpu",
    )  # fmt: skip
    expected = [(record["track"], record["person"], record["similarity"]) for record in joined[0]]
    assert [(each.track, each.person, each.similarity) for each in predictions] == expected
    assert {each.name for each in predictions if each.person == 2} == {"Bo"}
    frames = predictions[1].frames()
    expected = {(2, predictions[1].person, predictions[1].name)}
    assert set(frames[["track", "person", "name"]].itertuples(index=False, name=None)) == expected


def test_a_name_for_the_main_face_needs_no_network(video_folder):
    (video_folder / "one.csv").write_text("video,person,name\nfilm.mp4,1,Ada\n")
    records = json.loads(predict(video_folder, "--people", "one.csv", "--json").stdout)
    assert [(record["track"], record["person"], record["name"]) for record in records] == [(0, 1, "Ada")]
