"""AFEW and CAER: a folder per split and expression in every known spelling; repeated names get different ids."""

import pytest
from helpers.dataset_trees import create_tree, expand_lines, format_entries, scan

from ceflpipe.cache.errors import CeflError

ALIGNED = "AlignedFaces_LBPTOP_Points"
AFEW = f"""
AFEW_8/Train_AFEW/Train_AFEW/Angry/{{005153760,013736360}}.avi
AFEW_8/Train_AFEW/Train_AFEW/Sad_/000147200.AVI
AFEW_8/Train_AFEW/Train_AFEW/Happy/{{001703120,999999999}}.avi
AFEW_8/Train_AFEW/Train_AFEW/Happy/notes.txt
AFEW_8/Train_AFEW/Train_AFEW/Bored/1.avi
AFEW_8/Train_AFEW/Train_AFEW/Train_6.xml
AFEW_8/Train_AFEW/Train_AFEW/{ALIGNED}/{ALIGNED}/Faces/{{005153760,013736360,000147200}}/{{000,001}}.jpg
AFEW_8/Train_AFEW/Train_AFEW/{ALIGNED}/{ALIGNED}/Faces/999999999/
AFEW_8/Train_AFEW/Train_AFEW/{ALIGNED}/{ALIGNED}/Faces/777/000.jpg
AFEW_8/Val_AFEW/Neutral/005153760.avi
AFEW_8/Val_AFEW/Surprise/001703120.avi
AFEW_8/Val_AFEW/{ALIGNED}_Val/Faces/005153760/{{1,2,10}}.jpg
AFEW_8/Val_AFEW/Val_6.xml
AFEW_8/Test_AFEW/{{1,2}}.avi
"""
TRAIN, VAL = "AFEW_8/Train_AFEW/Train_AFEW", "AFEW_8/Val_AFEW"
VIDEOS = f"""
train/anger/005153760|{TRAIN}/Angry/005153760.avi|anger||train
train/anger/013736360|{TRAIN}/Angry/013736360.avi|anger||train
train/happiness/001703120|{TRAIN}/Happy/001703120.avi|happiness||train
train/happiness/999999999|{TRAIN}/Happy/999999999.avi|happiness||train
train/sadness/000147200|{TRAIN}/Sad_/000147200.AVI|sadness||train
val/neutral/005153760|{VAL}/Neutral/005153760.avi|neutral||val
val/surprise/001703120|{VAL}/Surprise/001703120.avi|surprise||val
"""


def test_afew_videos_by_split_and_expression(tmp_path):
    result = scan("afew", create_tree(tmp_path, AFEW))
    assert sorted(format_entries(result.entries).splitlines()) == expand_lines(VIDEOS).splitlines()
    assert sorted(result.skipped) == [
        ("AFEW_8/Test_AFEW/1.avi", "not in a folder of an expression (test)"),
        ("AFEW_8/Test_AFEW/2.avi", "not in a folder of an expression (test)"),
        (f"{TRAIN}/Bored/1.avi", "the folder Bored does not name a known expression"),
    ]
    assert result.missing == []


@pytest.mark.parametrize(
    ("train", "val"), [("Train", "Val"), ("train", "val"), ("train_afew", "val_afew"), ("Train_AFEW_8.0", "Validation")]
)
def test_afew_in_every_known_spelling(tmp_path, train, val):
    create_tree(tmp_path, f"{train}/Happy/1.avi\n{val}/Fear/1.avi")
    assert format_entries(scan("afew", tmp_path).entries) == expand_lines(f"""
        train/happiness/1|{train}/Happy/1.avi|happiness||train
        val/fear/1|{val}/Fear/1.avi|fear||val
    """)


def test_afew_with_its_aligned_faces(tmp_path):
    result = scan("afew", create_tree(tmp_path, AFEW), input="crops")
    faces = f"{TRAIN}/{ALIGNED}/{ALIGNED}/Faces"
    assert (
        sorted(format_entries(result.entries).splitlines())
        == expand_lines(f"""
        train/anger/005153760|{faces}/005153760|anger||train
        train/anger/013736360|{faces}/013736360|anger||train
        train/happiness/001703120|{faces}/001703120|happiness||train
        train/happiness/999999999|{faces}/999999999|happiness||train
        train/sadness/000147200|{faces}/000147200|sadness||train
        val/neutral/005153760|{VAL}/{ALIGNED}_Val/Faces/005153760|neutral||val
        val/surprise/001703120|{VAL}/{ALIGNED}_Val/Faces/001703120|surprise||val
    """).splitlines()
    )
    assert sorted(result.missing) == [
        "train/happiness/001703120: no aligned faces",
        "train/happiness/999999999: no aligned faces",
        "val/surprise/001703120: no aligned faces",
    ]
    assert (f"{faces}/777", "aligned faces without a clip in a folder of an expression") in result.skipped


def test_afew_without_aligned_faces_is_refused_as_crops(tmp_path):
    create_tree(tmp_path, "Train/Happy/1.avi\nVal/Happy/1.avi")
    assert len(scan("afew", tmp_path).entries) == 2
    with pytest.raises(CeflError, match=r"no folder AlignedFaces_LBPTOP_Points.*extract: \{input: video\}"):
        scan("afew", tmp_path, input="crops")


def test_caer_clip_numbers_repeat_across_folders(tmp_path):
    create_tree(tmp_path, """
        CAER/train/train/{Anger,Happy}/{0001,0002}.avi
        CAER/validation/Anger/0001.avi
        CAER/test/Sad/0001.avi
        CAER/test/Sad/Thumbs.db
    """)  # fmt: skip
    result = scan("caer", tmp_path)
    assert (
        sorted(format_entries(result.entries).splitlines())
        == expand_lines("""
        test/sadness/0001|CAER/test/Sad/0001.avi|sadness||test
        train/anger/0001|CAER/train/train/Anger/0001.avi|anger||train
        train/anger/0002|CAER/train/train/Anger/0002.avi|anger||train
        train/happiness/0001|CAER/train/train/Happy/0001.avi|happiness||train
        train/happiness/0002|CAER/train/train/Happy/0002.avi|happiness||train
        unused/anger/0001|CAER/validation/Anger/0001.avi|anger||unused
    """).splitlines()
    )
    assert result.notes == ["1 validation clips are listed, but not used (train -> test)"]


def test_caer_validation_is_in_no_fold(tmp_path):
    from ceflpipe.stages.heads.folds import make_folds

    create_tree(tmp_path, "CAER/{train,validation,test}/Anger/{1..3}.avi")
    entries = scan("caer", tmp_path).entries
    (fold,) = make_folds(entries, "split", 10, 0)
    assert {entries[i].split for i in fold.train} == {"train"}
    assert {entries[i].split for i in fold.test} == {"test"}
