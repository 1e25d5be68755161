"""DFEW and MAFW: labels and folds from the official lists in every spelling; clips with or without leading zeros."""

import pytest
from helpers.dataset_trees import create_tree, expand_lines, format_entries, scan

from ceflpipe.cache.errors import CeflError

# label code by clip, and the clips that each fold tests
LABEL = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 12: 6, 7: 7, 8: 1, 9: 2, 10: 3}
TEST_FOLDS = {1: (1, 2), 2: (3, 4), 3: (5, 12), 4: (7, 8), 5: (9, 10)}
CLIP = "DFEW-part2/Clip"
ENTRIES = f"""
00001|{CLIP}/original/part_1/1.mp4|happiness|||1
00002|{CLIP}/original/part_1/2.mp4|sadness|||1
00003|{CLIP}/original/part_1/00003.mp4|neutral|||2
00004|{CLIP}/original/part_1/4.MP4|anger|||2
00005|{CLIP}/original/00005.mp4|surprise|||3
00007|{CLIP}/original/part_2/7.mp4|fear|||4
00008|Clip/original/00008.mp4|happiness|||4
00009|{CLIP}/original/part_2/9.mp4|sadness|||5
00010|{CLIP}/original/part_2/10.mp4|neutral|||5
00012|{CLIP}/original/part_2/00012.mp4|disgust|||3
"""
VIDEOS = f"""
{CLIP}/original/part_1/{{1,2}}.mp4
{CLIP}/original/part_1/00003.mp4
{CLIP}/original/part_1/4.MP4
{CLIP}/original/00005.mp4
{CLIP}/original/part_2/{{7,9,10,12,00012,16000}}.mp4
{CLIP}/original/readme.mp4
{CLIP}/clip_224x224_avi/{{00001,00002}}.avi
DFEW-part2/Annotation/annotation.csv = 1happy,2sad,3neutral,4angry,5surprise,6disgust,7fear,order,label|5,1,0,0,0,2,2,11,0|
"""


def fold_lists(folder, spelling, header="video_name,label", line="{:05d},{}", folds=TEST_FOLDS, label=LABEL):
    """Return the tree of the fold lists; ``spelling`` is the name of a list with {part} and {k}."""
    text = ""
    for k, tested in folds.items():
        for part in ("train", "test"):
            clips = [c for c in label if (c in tested) == (part == "test")]
            content = "|".join([*([header] if header else []), *(line.format(c, label[c]) for c in clips)])
            text += f"{folder}/{spelling.format(part=part, k=k)} = {content}|\n"
    return text


OFFICIAL = fold_lists("DFEW-part2/EmoLabel_DataSplit", "{part}(single-labeled)/set_{k}.csv")


def test_videos_with_the_official_folds(tmp_path):
    result = scan("dfew", create_tree(tmp_path, VIDEOS + OFFICIAL))
    assert format_entries(result.entries) == expand_lines(ENTRIES)
    assert result.missing == ["00008 (Clip/original/00008.mp4)"]
    assert result.skipped == [
        (f"{CLIP}/original/part_2/12.mp4", "another file of a video that is already listed"),
        (
            f"{CLIP}/original/part_2/16000.mp4",
            "not in the fold lists, which contain the videos with a single label",
        ),
    ]
    assert result.notes == []


SPELLINGS = {
    "as distributed": "{part}(single-labeled)/set_{k}.csv",
    "unzipped": "{part}(single_labeled)/{part}(single_labeled)/set_{k}.csv",
    "in one folder": "{part}_set_{k}.csv",
    "of the authors' code": "label/single_{part}set_{k}.csv",
    "short": "{part}/set_{k}.csv",
    "a folder per fold": "split0{k}/{part}.csv",
    "a folder per set": "set_{k}/{part}_single_label.csv",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_lists_in_every_spelling(tmp_path, spelling):
    create_tree(tmp_path, VIDEOS + fold_lists("DFEW-part2/EmoLabel_DataSplit", SPELLINGS[spelling]))
    assert format_entries(scan("dfew", tmp_path).entries) == expand_lines(ENTRIES)


@pytest.mark.parametrize(
    "style",
    [{"line": "{},{}"}, {"header": ""}, {"line": "{:05d}.mp4 {}"}, {"line": "DFEW/{:05d};{}", "header": "name;label"}],
)
def test_lists_in_every_line_format(tmp_path, style):
    create_tree(
        tmp_path, VIDEOS + fold_lists("DFEW-part2/EmoLabel_DataSplit", "{part}(single-labeled)/set_{k}.csv", **style)
    )
    assert format_entries(scan("dfew", tmp_path).entries) == expand_lines(ENTRIES)


@pytest.mark.parametrize(
    ("folder", "option"),
    [("clip_224x224", ""), ("jpg_256", ""), ("clip_224x224_16f", "clip_224x224_16f"), ("CLIP_224x224", "")],
)
def test_crops_of_dfew(tmp_path, folder, option):
    crops = f"""
    {CLIP}/{folder}/{folder}/000{{01..05}}/{{1..16}}.jpg
    {CLIP}/{folder}/{folder}/{{7,9}}/0000{{1,2}}_0000{{1..2}}.jpg
    {CLIP}/{folder}/{folder}/00010/
    {CLIP}/{folder}/{folder}/00099/1.jpg
    """
    result = scan("dfew", create_tree(tmp_path, VIDEOS + crops + OFFICIAL), input="crops", crop_folder=option)
    home = f"{CLIP}/{folder}/{folder}"
    names = {**{n: f"{n:05d}" for n in LABEL}, 7: "7", 9: "9"}
    assert [(entry.id, entry.path) for entry in result.entries] == [
        (f"{n:05d}", f"{home}/{name}") for n, name in sorted(names.items())
    ]
    assert result.missing == [f"{n:05d} ({home}/{n:05d})" for n in (8, 10, 12)]
    assert [path for path, _ in result.skipped] == [f"{home}/00099"]
    assert result.notes == [f"crops are read from {home}"]


def test_contradictory_and_missing_lists_are_noted(tmp_path):
    folds = {1: (1, 2), 2: (2, 3), 4: (7, 8)}
    text = fold_lists("x", "{part}/set_{k}.csv", folds=folds)
    text = text.replace(
        "x/test/set_4.csv = video_name,label|00007,7|", "x/test/set_4.csv = video_name,label|00007,3|00001,1|"
    )
    result = scan("dfew", create_tree(tmp_path, VIDEOS + text))
    notes = "\n".join(result.notes)
    for message in (
        "2 videos (e.g. 00001) are tested by more than one fold",
        "1 videos (e.g. 00007) have different labels",
        "1 videos (e.g. 00001) are in both the train list and the test list of fold 4",
        "(e.g. 00004) are only in train lists",
    ):
        assert message in notes
    assert result.missing[:2] == ["the test list of fold 3", "the test list of fold 5"]


def test_a_video_without_a_single_label_is_skipped(tmp_path):
    result = scan("dfew", create_tree(tmp_path, VIDEOS + fold_lists("x", "{part}/set_{k}.csv", label={**LABEL, 9: 0})))
    assert "00009" not in [entry.id for entry in result.entries]
    assert ("00009", "its label in the lists is 0") in result.skipped


def test_labels_numbered_from_zero_are_refused(tmp_path):
    create_tree(
        tmp_path, VIDEOS + fold_lists("x", "{part}/set_{k}.csv", label={clip: code - 1 for clip, code in LABEL.items()})
    )
    with pytest.raises(CeflError, match="labels of the lists are numbered from 0"):
        scan("dfew", tmp_path)


def test_errors_name_the_problem(tmp_path):
    create_tree(tmp_path / "a", VIDEOS)
    with pytest.raises(CeflError, match="no lists of the five folds"):
        scan("dfew", tmp_path / "a")
    create_tree(tmp_path / "b", VIDEOS + "test/set_1.csv = video_name,label|00001,1|oops|")
    with pytest.raises(
        CeflError, match=r"test/set_1.csv: line 3: expected the number of a video and its label, found oops"
    ):
        scan("dfew", tmp_path / "b")
    create_tree(tmp_path / "c", OFFICIAL + f"{CLIP}/original/1.mp4")
    with pytest.raises(CeflError, match=r"no folder of crops below it; searched for clip_224x224, jpg_256"):
        scan("dfew", tmp_path / "c", input="crops")


def test_mafw_lists_single_labels_only(tmp_path):
    home = "MAFW/Train & Test Set"
    words = {1: "anger", 2: "disappointment", 3: "helplessness", 4: "anxiety", 5: "contempt"}
    folds = {k: (k,) for k in range(1, 6)}
    single = fold_lists(f"{home}/single/no_caption", "set_{k}/{part}.txt", "", "{:05d}.mp4 {}", folds, words)
    caption = single.replace("no_caption", "with_caption").replace("anger", "fear")
    compound = fold_lists(
        f"{home}/compound/no_caption", "set_{k}/{part}.txt", "", "{:05d}.mp4 {}", folds, {6: "anger_disgust"}
    )
    create_tree(tmp_path, single + caption + compound + "MAFW/data/clips/0000{1..3}.mp4\nMAFW/data/clips/{5,00006}.mp4")
    result = scan("mafw", tmp_path)
    assert format_entries(result.entries) == expand_lines("""
        00001|MAFW/data/clips/00001.mp4|anger|||1
        00002|MAFW/data/clips/00002.mp4|disappointment|||2
        00003|MAFW/data/clips/00003.mp4|helplessness|||3
        00004|clips/00004.mp4|anxiety|||4
        00005|MAFW/data/clips/5.mp4|contempt|||5
    """)
    assert result.missing == ["00004 (clips/00004.mp4)"]
    assert [path for path, _ in result.skipped] == ["MAFW/data/clips/00006.mp4"]
