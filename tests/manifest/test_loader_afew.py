"""AFEW and CAER: a folder per split and expression in every spelling seen; names that repeat stay apart."""

import pytest
from helpers.fake_datasets import expect, lines, plant, scan

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
    found = scan("afew", plant(tmp_path, AFEW))
    assert sorted(lines(found.entries).splitlines()) == expect(VIDEOS).splitlines()
    assert sorted(found.skipped) == [
        ("AFEW_8/Test_AFEW/1.avi", "not in a folder of an expression (test)"),
        ("AFEW_8/Test_AFEW/2.avi", "not in a folder of an expression (test)"),
        (f"{TRAIN}/Bored/1.avi", "the folder Bored names no expression known here"),
    ]
    assert found.missing == []


@pytest.mark.parametrize(
    ("train", "val"), [("Train", "Val"), ("train", "val"), ("train_afew", "val_afew"), ("Train_AFEW_8.0", "Validation")]
)
def test_afew_in_the_spellings_seen(tmp_path, train, val):
    plant(tmp_path, f"{train}/Happy/1.avi\n{val}/Fear/1.avi")
    assert lines(scan("afew", tmp_path).entries) == expect(f"""
        train/happiness/1|{train}/Happy/1.avi|happiness||train
        val/fear/1|{val}/Fear/1.avi|fear||val
    """)


def test_afew_with_the_faces_that_come_with_it(tmp_path):
    found = scan("afew", plant(tmp_path, AFEW), use="crops", faces="given")
    faces = f"{TRAIN}/{ALIGNED}/{ALIGNED}/Faces"
    assert (
        sorted(lines(found.entries).splitlines())
        == expect(f"""
        train/anger/005153760|{faces}/005153760|anger||train
        train/anger/013736360|{faces}/013736360|anger||train
        train/happiness/001703120|{faces}/001703120|happiness||train
        train/happiness/999999999|{faces}/999999999|happiness||train
        train/sadness/000147200|{faces}/000147200|sadness||train
        val/neutral/005153760|{VAL}/{ALIGNED}_Val/Faces/005153760|neutral||val
        val/surprise/001703120|{VAL}/{ALIGNED}_Val/Faces/001703120|surprise||val
    """).splitlines()
    )
    assert sorted(found.missing) == [
        "train/happiness/001703120: no aligned faces",
        "train/happiness/999999999: no aligned faces",
        "val/surprise/001703120: no aligned faces",
    ]
    assert (f"{faces}/777", "aligned faces of no clip in the folders of expressions, so no label") in found.skipped


def test_afew_faces_and_extraction_must_agree(tmp_path):
    plant(tmp_path, "Train/Happy/1.avi\nVal/Happy/1.avi")
    with pytest.raises(CeflError, match=r"options.use: crops needs extract: \{faces: given\}, found detect"):
        scan("afew", tmp_path, use="crops")
    with pytest.raises(CeflError, match=r"options.use: videos needs extract: \{faces: detect\}"):
        scan("afew", tmp_path, faces="given")
    with pytest.raises(CeflError, match="no folder AlignedFaces_LBPTOP_Points"):
        scan("afew", tmp_path, use="crops", faces="given")


def test_caer_numbers_that_begin_anew_in_every_folder(tmp_path):
    plant(tmp_path, """
        CAER/train/train/{Anger,Happy}/{0001,0002}.avi
        CAER/validation/Anger/0001.avi
        CAER/test/Sad/0001.avi
        CAER/test/Sad/Thumbs.db
    """)  # fmt: skip
    found = scan("caer", tmp_path)
    assert (
        sorted(lines(found.entries).splitlines())
        == expect("""
        test/sadness/0001|CAER/test/Sad/0001.avi|sadness||test
        train/anger/0001|CAER/train/train/Anger/0001.avi|anger||train
        train/anger/0002|CAER/train/train/Anger/0002.avi|anger||train
        train/happiness/0001|CAER/train/train/Happy/0001.avi|happiness||train
        train/happiness/0002|CAER/train/train/Happy/0002.avi|happiness||train
        validation/anger/0001|CAER/validation/Anger/0001.avi|anger||validation
    """).splitlines()
    )
    assert found.notes == ["1 validation clips are listed, but neither trained on nor tested on (train -> test)"]


def test_caer_validation_is_in_no_fold(tmp_path):
    from ceflpipe.stages.heads.folds import make_folds

    plant(tmp_path, "CAER/{train,validation,test}/Anger/{1..3}.avi")
    rows = scan("caer", tmp_path).entries
    (fold,) = make_folds(rows, "split", 10, 0)
    assert {rows[i].split for i in fold.train} == {"train"}
    assert {rows[i].split for i in fold.test} == {"test"}
