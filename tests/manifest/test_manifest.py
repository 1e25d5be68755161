"""Manifests: reading returns what was written, and every kind of problem is named."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.manifest.dataset_report import check_manifest
from ceflpipe.stages.manifest.labels import KNOWN_LABELS, normalize_label, sort_labels
from ceflpipe.stages.manifest.loaders import folders
from ceflpipe.stages.manifest.manifest import VideoEntry, read_manifest, write_manifest


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=12).filter(
    lambda t: t.strip() == t
)


@given(
    st.lists(
        st.tuples(texts, st.sampled_from(KNOWN_LABELS), texts | st.just("")),
        min_size=1,
        max_size=8,
        unique_by=lambda t: t[0],
    )
)
@settings(max_examples=80, deadline=None)
def test_reading_returns_what_was_written(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("m") / "m.csv"
    entries = [VideoEntry(name, f"v{i}.mp4", label, subject) for i, (name, label, subject) in enumerate(items)]
    write_manifest(path, entries)
    assert read_manifest(path).entries == tuple(entries)


def test_only_path_and_label_are_required_and_other_columns_ignored(tmp_path):
    path = write(tmp_path / "m.csv", '\ufeffPath,Label,camera\r\nsub/a.mp4,Happy,left\r\n"b, c.mp4", SAD ,right\r\n')
    manifest = read_manifest(path)
    assert [(r.id, r.path, r.label) for r in manifest.entries] == [
        ("sub/a", "sub/a.mp4", "happiness"),
        ("b, c", "b, c.mp4", "sadness"),
    ]
    assert manifest.labels == ("happiness", "sadness")
    assert manifest.root == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.mp4\n", "column label is missing; found path"),
        ("path,label\n", "no videos; list one per line"),
        ("", "not a valid CSV file"),
        ("path,label\na.mp4,fear\na.mp4,fear\n", "id a occurs 2 times; ids must be unique"),
        ("path,label\na.mp4,suprice\n", "line 2: unknown label 'suprice'; did you mean surprise"),
        ("path,label\n../a.mp4,fear\n", "leads out of"),
        ("path,label\n/a.mp4,fear\n", "leads out of"),
        ("path,label,apex\na.mp4,fear,x7\n", "apex 'x7' is not a frame index"),
        ("path,label,rotation\na.mp4,fear,45\n", "rotation '45'"),
        ("path,label,region\na.mp4,fear,0 0 10\n", "region '0 0 10'"),
        ("id,path,label\n1,,fear\n", "line 2: no path"),
    ],
)
def test_problems_are_named(tmp_path, text, message):
    path = write(tmp_path / "m.csv", text)
    with pytest.raises(CeflError, match=message):
        read_manifest(path)


def test_all_problems_are_listed_at_once(tmp_path):
    path = write(tmp_path / "m.csv", "path,label\na.mp4,x\nb.mp4,y\n../c.mp4,fear\n")
    with pytest.raises(CeflError, match="3 problems") as error:
        read_manifest(path)
    assert all(text in str(error.value) for text in ("'x'", "'y'", "../c.mp4"))


def test_custom_labels(tmp_path):
    path = write(tmp_path / "m.csv", "path,label\na.mp4,pain\nb.mp4,none\n")
    assert read_manifest(path, labels=("none", "pain")).labels == ("none", "pain")
    with pytest.raises(CeflError, match="--labels"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("spelling", "label"),
    [("Angry", "anger"), ("ANG", "anger"), ("Sad_", "sadness"), ("Happiness", "happiness"), ("hap", "happiness"),
     ("Surprised", "surprise"), ("fearful", "fear"), ("Gross", "disgust"), ("3_neutral", "neutral"), ("SU", "surprise"), ("blue", None)],
)  # fmt: skip
def test_spellings(spelling, label):
    assert normalize_label(spelling) == label


def test_labels_are_sorted_like_known_labels():
    assert sort_labels({"surprise", "zeal", "anger", "neutral", "contempt"}) == (
        "anger",
        "neutral",
        "surprise",
        "contempt",
        "zeal",
    )


def test_a_folder_per_expression(tmp_path):
    for name in (
        "train/Happy/1.mp4",
        "train/happy/10.MP4",
        "val/SAD_/x[1].avi",
        "Anger/deep/er/2.webm",
        "other/3.mp4",
        "Fear/notes.txt",
    ):
        write(tmp_path / name, "")
    for frame in ("1.jpg", "2.jpg"):
        write(tmp_path / "test/Surprised/clip7" / frame, "")
    result = folders.scan(tmp_path)
    assert sorted((r.id, r.label, r.split) for r in result.entries) == [
        ("Anger/deep/er/2", "anger", ""),
        ("test/Surprised/clip7", "surprise", "test"),
        ("train/Happy/1", "happiness", "train"),
        ("train/happy/10", "happiness", "train"),
        ("val/SAD_/x[1]", "sadness", "val"),
    ]
    assert result.skipped == [("other/3.mp4", "no parent folder names an expression")]


def test_check_counts_and_lists_all_problems(tmp_path):
    write(tmp_path / "a.mp4", "x")
    text = (
        "id,path,label,subject,apex\n"
        + "".join(f"{i},a.mp4,anger,S{i % 3},\n" for i in range(9))
        + "x,gone.mp4,fear,,99\n"
    )
    report = check_manifest(read_manifest(write(tmp_path / "m.csv", text)), {"0": 80, "x": 50, "1": "broken"})
    assert (report.num_videos, report.num_subjects, report.labels, report.missing, report.num_apex) == (
        10,
        3,
        {"anger": 9, "fear": 1},
        ["gone.mp4"],
        1,
    )
    warnings = "\n".join(report.warnings)
    for message in (
        "1 files are missing",
        "unbalanced",
        "1 of 10 videos have no subject",
        "a.mp4 is listed 9 times",
        "1: broken",
        "apex 99 is after the last frame",
    ):
        assert message in warnings
