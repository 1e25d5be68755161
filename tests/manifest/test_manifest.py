"""Manifests: reading returns what was written, and every kind of problem is named."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.manifest.dataset_report import check_manifest
from ceflpipe.stages.manifest.labels import KNOWN_LABELS, normalize_label, sort_labels
from ceflpipe.stages.manifest.loaders import folders
from ceflpipe.stages.manifest.manifest import VideoEntry, default_ids, read_manifest, write_manifest


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=12).filter(
    lambda t: t.strip() == t
)


def is_subject(text):
    """Return whether a text is no word for an unknown value, nor a whole number with decimals."""
    return text.lower() not in ("na", "nan", "none", "n/a", "#n/a", "<na>") and not text.endswith(".0")


@given(
    st.lists(
        st.tuples(texts, st.sampled_from(KNOWN_LABELS), texts.filter(is_subject) | st.just("")),
        min_size=1,
        max_size=8,
        unique_by=lambda t: t[0],
    )
)
@settings(max_examples=80)
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
        ("path,label,path\na.mp4,fear,b.mp4\n", "column path occurs twice; remove or rename one"),
        ("path,label\n", "no videos; list one per line"),
        ("", "not a valid CSV file"),
        ("path,label\na.mp4,fear\na.mp4,fear\n", "id a occurs 2 times; ids must be unique: give every line its own"),
        (
            "path,label\nC:\\\\films\\\\a.mp4,fear\n",
            "of another computer .Windows.; write the paths relative to .* --root",
        ),
        (
            "path,label\nSmith, Jo.mp4,fear\n",
            'line 2: 3 values, but the header has 2 columns; .* in quotes, e.g. "a,b.mp4"',
        ),
        ('path,label\n"a.mp4,fear\n', "line 2: .*; close every quote"),
        ("path,label\na.mp4,suprice\n", "line 2: unknown label 'suprice'; did you mean surprise"),
        ("path,label\n../a.mp4,fear\n", "leads out of"),
        ("path,label\n/a.mp4,fear\n", "leads out of"),
        ("path,label,apex\na.mp4,fear,x7\n", "apex 'x7' is not a frame index; write a whole number"),
        ("path,label,apex\na.mp4,fear,41.5\n", "apex '41.5' is not a frame index"),
        ("path,label,rotation\na.mp4,fear,45\n", "rotation '45'"),
        ("path,label,region\na.mp4,fear,0 0 10\n", "region '0 0 10'"),
        ("id,path,label\n1,,fear\n", "line 2: no path; write the path of the video"),
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
    assert result.skipped == [
        ("Fear/notes.txt", "the ending .txt is not that of a video"),
        ("other/3.mp4", "no folder above it names an expression"),
    ]


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


def test_ids_of_files_that_differ_in_their_ending_only(tmp_path):
    """Oracle: the ids by hand; they are distinct, and do not depend on the order."""
    names = ["a.mp4", "b.mp4", "a.avi", "c.mp4.avi", "c.mp4", "c.mov", "d", "d.GIF", "e.v1", "S1/a.mp4"]
    expected = ["a.mp4", "b", "a.avi", "c.mp4.avi", "c.mp4", "c.mov", "d", "d.GIF", "e.v1", "S1/a"]
    assert default_ids(names) == expected
    assert default_ids(names[::-1]) == expected[::-1]
    listing = write(tmp_path / "m.csv", "path,label\n" + "".join(f"{name},fear\n" for name in names))
    assert [entry.id for entry in read_manifest(listing).entries] == expected
    for name in ("Happy/a.mp4", "Happy/a.avi", "Happy/b.mp4", "Happy/c.mp4", "Happy/c .mp4"):
        write(tmp_path / "films" / name, "")
    scanned = folders.scan(tmp_path / "films").entries
    assert sorted(entry.id for entry in scanned) == [
        "Happy/a.avi", "Happy/a.mp4", "Happy/b", "Happy/c .mp4", "Happy/c.mp4",
    ]  # fmt: skip
    write_manifest(tmp_path / "films.csv", scanned)
    assert read_manifest(tmp_path / "films.csv").entries == tuple(scanned)


def test_a_given_id_keeps_the_default_one_from_being_used_twice(tmp_path):
    path = write(tmp_path / "m.csv", "id,path,label\na,x.mp4,fear\n,a.mp4,fear\n")
    assert [entry.id for entry in read_manifest(path).entries] == ["a", "a.mp4"]


def test_absolute_paths_in_the_folder_of_the_list(tmp_path):
    """Whoever names the list: they lead nowhere else. Ids are those of the relative paths."""
    write(tmp_path / "data/S1/a.mp4", "")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for folder in ("data", "link"):
        text = f"path,label\n{tmp_path / folder}/S1/a.mp4,fear\n{tmp_path}/data/b.mp4,fear\n"
        manifest = read_manifest(write(tmp_path / folder / "m.csv", text))
        assert manifest.entries[0].id == "S1/a"
        assert [manifest.video_path(entry).exists() for entry in manifest.entries] == [True, False]
    with pytest.raises(CeflError, match="leads out of"):
        read_manifest(write(tmp_path / "data/m.csv", f"path,label\n{tmp_path}/data/../a.mp4,fear\n"))
    with pytest.raises(CeflError, match="leads out of"):
        read_manifest(write(tmp_path / "data/m.csv", f"path,label\n{tmp_path}/data2/a.mp4,fear\n"))


def test_a_list_that_the_user_names_may_name_any_file_but_not_climb(tmp_path):
    write(tmp_path / "elsewhere/a.mp4", "")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    path = write(tmp_path / "data/m.csv", f"path,label\n{tmp_path}/elsewhere/a.mp4,fear\nlinked/a.mp4,fear\n")
    manifest = read_manifest(path, named_by_user=True)
    assert [manifest.video_path(entry).samefile(tmp_path / "elsewhere/a.mp4") for entry in manifest.entries] == [
        True
    ] * 2
    with pytest.raises(CeflError, match=r"elsewhere/a.mp4 leads out of .*; allow it with --allow-external-paths"):
        read_manifest(path)
    climbing = write(tmp_path / "data/m.csv", "path,label\nx/../../elsewhere/a.mp4,fear\n")
    with pytest.raises(CeflError, match=r"leads out of .*; write it as an absolute path"):
        read_manifest(climbing, named_by_user=True)
    assert read_manifest(climbing, named_by_user=True, allow_external_paths=True).entries


@pytest.mark.parametrize("value", ["NA", "na", "NaN", "nan", "None", "NONE", "N/A", "n/a", "#N/A"])
def test_words_for_an_unknown_value_are_empty(tmp_path, value):
    text = f"path,label,subject,split,fold,apex,rotation,region\na.mp4,fear,{','.join([value] * 6)}\n"
    (entry,) = read_manifest(write(tmp_path / "m.csv", text)).entries
    assert entry == VideoEntry("a", "a.mp4", "fear")


def test_whole_numbers_with_decimals(tmp_path):
    """A spreadsheet or pandas writes 41.0; the subject 1.0 is 1 only if all subjects are such numbers."""
    text = "path;label;subject;fold;apex;rotation;region\na.mp4;fear;1.0;2.0;41.0;90.0;0.0 0 64.00 64\nb.mp4;fear;NaN;;7,0;;\n"
    first, second = read_manifest(write(tmp_path / "m.csv", text)).entries
    assert first == VideoEntry("a", "a.mp4", "fear", "1", "", "2", "41", "90", "0 0 64 64")
    assert second == VideoEntry("b", "b.mp4", "fear", apex="7")
    mixed = write(tmp_path / "m.csv", "path,label,subject\na.mp4,fear,1.0\nb.mp4,fear,v2\n")
    assert [entry.subject for entry in read_manifest(mixed).entries] == ["1.0", "v2"]


def test_backslashes_are_slashes_unless_the_name_has_one(tmp_path):
    (tmp_path / "one\\file.mp4").touch()
    path = write(tmp_path / "m.csv", "path,label\nS1\\a.mp4,fear\none\\file.mp4,fear\n..\\b.mp4,fear\n")
    with pytest.raises(CeflError, match=r"1 problem:\n  line 4: path ../b.mp4 leads out"):
        read_manifest(path)
    path.write_text(path.read_text().replace("..\\b", "b"))
    assert [entry.path for entry in read_manifest(path).entries] == ["S1/a.mp4", "one\\file.mp4", "b.mp4"]


def test_names_that_are_not_utf8_return_as_they_were(tmp_path):
    """A folder list of names in three encodings; each path opens its file, and ids are text."""
    names = [b"caf\xe9.mp4", "Zoë.mp4".encode(), b"plain.mp4"]
    (tmp_path / "Happy").mkdir()
    for name in names:
        (tmp_path / "Happy" / os.fsdecode(name)).touch()
    scanned = folders.scan(tmp_path).entries
    write_manifest(tmp_path / "videos.csv", scanned)
    manifest = read_manifest(tmp_path / "videos.csv")
    assert manifest.entries == tuple(scanned)
    assert {os.fsencode(manifest.video_path(entry).name) for entry in manifest.entries} == set(names)
    assert sorted(entry.id for entry in scanned) == ["Happy/Zoë", "Happy/caf\\xe9", "Happy/plain"]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("happy/An/1.mp4", "happiness"),  # a person's name below the expression, and above it
        ("An/happy/1.mp4", "happiness"),
        ("sadness/Joy/1.mp4", "sadness"),
        ("Joy/sadness/1.mp4", "sadness"),
        ("3_Happy/Su/Di/1.mp4", "happiness"),
        ("Joy/An/1.mp4", "happiness"),
        ("SAD_/sadness/1.mp4", "sadness"),
        ("Su/1.mp4", None),
        ("An/Ha/1.mp4", None),
    ],
)
def test_class_folders_are_whole_words(tmp_path, path, label):
    write(tmp_path / path, "")
    result = folders.scan(tmp_path)
    assert [entry.label for entry in result.entries] == ([label] if label else [])
    assert [name for name, _ in result.skipped] == ([] if label else [path])


def test_two_folders_that_name_different_expressions_are_refused(tmp_path):
    write(tmp_path / "Happy/take/Sad/1.mp4", "")
    with pytest.raises(CeflError, match=r"Happy/take/Sad: .*Happy \(happiness\) and Sad \(sadness\); rename"):
        folders.scan(tmp_path)
    assert folders.scan(tmp_path, ("tired", "sadness")).entries[0].label == "sadness"


def test_custom_labels_of_folders(tmp_path):
    for name in ("An/1.mp4", "su/An/2.mp4", "fear/3.mp4"):
        write(tmp_path / name, "")
    (tmp_path / "su/An").rename(tmp_path / "su/x")
    result = folders.scan(tmp_path, ("An", "Su"))
    assert [(entry.path, entry.label) for entry in result.entries] == [("An/1.mp4", "An"), ("su/x/2.mp4", "Su")]
    assert result.skipped == [("fear/3.mp4", "its folder names fear, which is not one of the labels An, Su")]


def test_check_warns_of_the_same_bytes_and_of_similar_subjects(tmp_path):
    """Oracle: which files and subjects are alike is written here by hand."""
    for name, text in (("a", "same"), ("b", "same"), ("c", "moon"), ("d", "longer"), ("e", ""), ("f", "")):
        write(tmp_path / f"{name}.mp4", text)
    subjects = ["Anna", "anna", "S1", "S01", "1", "2"]
    lines = [
        f"{name}.mp4,{label},{subject}"
        for name, label, subject in zip("abcdef", ["fear", "anger"] * 3, subjects, strict=True)
    ]
    report = check_manifest(read_manifest(write(tmp_path / "m.csv", "\n".join(["path,label,subject", *lines]))))
    assert [line for line in report.warnings if "same bytes" in line] == [
        "a.mp4, b.mp4 have the same bytes but different labels, so one video may be in training and test; keep one"
    ]
    assert sorted(line.split(" may be")[0] for line in report.warnings if "one person" in line) == [
        "subjects Anna, anna", "subjects S01, S1",
    ]  # fmt: skip
