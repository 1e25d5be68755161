"""BU-4DFE: which sequences are listed, what is missing by name, and the static set is told apart."""

import pytest
from helpers.fake_datasets import expect, lines, plant, scan

from ceflpipe.cache.errors import CeflError

TREE = """
BU_4DFE/BU_4DFE/F001/{Angry,Disgust,Fear,Happy,Sad,Surprise}/{000,001,002}.{jpg,wrl}
BU_4DFE/BU_4DFE/F002/F002/{Anger,Disgust,Fear,Happiness,Sadness,Surprise}/{000,001}.jpg
BU_4DFE/BU_4DFE/M043/{angry,DISGUST,Sad_}/000.JPG
BU_4DFE/BU_4DFE/M043/Fear/000.wrl
BU_4DFE/BU_4DFE/M043/Happy/
BU_4DFE/BU_4DFE/M043/Neutral/000.jpg
BU_4DFE/BU_4DFE/M043/.DS_Store
BU_4DFE/BU_4DFE/BU_WrlViewer_V2/viewer.exe
BU_4DFE/BU_4DFE/BU_WrlViewer_V2/Fear/help.jpg
BU_4DFE/__MACOSX/F099/Angry/000.jpg
BU4DFE_BND_V1.1/{F001,M043}/{Angry,Fear}/000.bnd
"""
ROWS = """
F001/anger|BU_4DFE/BU_4DFE/F001/Angry|anger|F001
F001/disgust|BU_4DFE/BU_4DFE/F001/Disgust|disgust|F001
F001/fear|BU_4DFE/BU_4DFE/F001/Fear|fear|F001
F001/happiness|BU_4DFE/BU_4DFE/F001/Happy|happiness|F001
F001/sadness|BU_4DFE/BU_4DFE/F001/Sad|sadness|F001
F001/surprise|BU_4DFE/BU_4DFE/F001/Surprise|surprise|F001
F002/anger|BU_4DFE/BU_4DFE/F002/F002/Anger|anger|F002
F002/disgust|BU_4DFE/BU_4DFE/F002/F002/Disgust|disgust|F002
F002/fear|BU_4DFE/BU_4DFE/F002/F002/Fear|fear|F002
F002/happiness|BU_4DFE/BU_4DFE/F002/F002/Happiness|happiness|F002
F002/sadness|BU_4DFE/BU_4DFE/F002/F002/Sadness|sadness|F002
F002/surprise|BU_4DFE/BU_4DFE/F002/F002/Surprise|surprise|F002
M043/anger|BU_4DFE/BU_4DFE/M043/angry|anger|M043
M043/disgust|BU_4DFE/BU_4DFE/M043/DISGUST|disgust|M043
M043/sadness|BU_4DFE/BU_4DFE/M043/Sad_|sadness|M043
"""


def test_every_sequence_with_pictures_is_listed_whatever_its_folder_is_called(tmp_path):
    found = scan("bu3dfe", plant(tmp_path, TREE))
    assert lines(found.entries) == expect(ROWS)
    assert sorted(found.skipped) == [
        ("BU4DFE_BND_V1.1/M043/Fear", "no pictures in it"),
        ("BU_4DFE/BU_4DFE/M043/Fear", "no pictures in it"),
        ("BU_4DFE/BU_4DFE/M043/Happy", "no pictures in it"),
        ("BU_4DFE/BU_4DFE/M043/Neutral", "neutral is not one of the labels: of this data set's configuration"),
    ]


def test_what_is_missing_is_named(tmp_path):
    missing = scan("bu3dfe", plant(tmp_path, TREE)).missing
    assert {"M043/fear", "M043/happiness", "M043/surprise", "F003/anger", "M001/sadness"} <= set(missing)
    assert len(missing) == 606 - 15
    assert not any(name.startswith(("F001/", "F002/", "F059/", "M044/")) for name in missing)


@pytest.mark.parametrize("inner", ["", "BU_4DFE", "BU_4DFE/BU_4DFE"])
def test_the_parent_or_the_inner_folder_will_do(tmp_path, inner):
    root = plant(tmp_path, TREE) / inner
    want = expect(ROWS).replace("BU_4DFE/BU_4DFE/", "BU_4DFE/BU_4DFE/"[len(inner) + bool(inner) :])
    assert lines(scan("bu3dfe", root).entries) == want


def test_a_list_of_sequences_to_leave_out(tmp_path):
    plant(tmp_path, TREE + "poor.txt = # quality 3 to 5|F001/Fear|f002/Happiness, no onset|M099/Fear|\n")
    found = scan("bu3dfe", tmp_path, exclude="poor.txt")
    left = {path: reason for path, reason in found.skipped if "poor" in reason}
    assert left == {f"BU_4DFE/BU_4DFE/{name}": "listed in poor.txt" for name in ("F001/Fear", "F002/F002/Happiness")}
    assert len(found.entries) == 13
    assert "F001/fear" not in found.missing
    assert any("1 names are no sequences of BU-4DFE, e.g. M099/fear" in note for note in found.notes)
    with pytest.raises(CeflError, match=r"gone.txt: no such file \(options.exclude\)"):
        scan("bu3dfe", tmp_path, exclude="gone.txt")


def test_the_static_bu3dfe_is_told_apart_and_explained(tmp_path):
    plant(
        tmp_path,
        "BU3DFE/F0001/F0001_{AN03WH,NE00WH}_F3D.{wrl,bnd}|BU3DFE/F0001/F0001_AN03WH_F2D.bmp".replace("|", "\n"),
    )
    with pytest.raises(CeflError, match="BU-4DFE, the dynamic set") as error:
        scan("bu3dfe", tmp_path)
    assert "F0001_AN03WH_F2D.bmp" in str(error.value)


def test_an_empty_folder_is_an_error_with_the_layout(tmp_path):
    with pytest.raises(CeflError, match=r"no video of bu3dfe found in it; expected(.|\n)*F001/Angry/000.jpg"):
        scan("bu3dfe", tmp_path)
