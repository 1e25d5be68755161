"""BU-4DFE: listed sequences, names of missing ones, and the static BU-3DFE is refused."""

import pytest
from helpers.dataset_trees import create_tree, expand_lines, format_entries, scan

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
ENTRIES = """
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


def test_every_sequence_with_images_is_listed_in_any_spelling(tmp_path):
    result = scan("bu4dfe", create_tree(tmp_path, TREE))
    assert format_entries(result.entries) == expand_lines(ENTRIES)
    assert sorted(result.skipped) == [
        ("BU4DFE_BND_V1.1/M043/Fear", "no images in it"),
        ("BU_4DFE/BU_4DFE/M043/Fear", "no images in it"),
        ("BU_4DFE/BU_4DFE/M043/Happy", "no images in it"),
        ("BU_4DFE/BU_4DFE/M043/Neutral", "neutral is not in labels: of the configuration"),
    ]


def test_missing_sequences_are_named(tmp_path):
    missing = scan("bu4dfe", create_tree(tmp_path, TREE)).missing
    assert {"M043/fear", "M043/happiness", "M043/surprise", "F003/anger", "M001/sadness"} <= set(missing)
    assert len(missing) == 606 - 15
    assert not any(name.startswith(("F001/", "F002/", "F059/", "M044/")) for name in missing)


@pytest.mark.parametrize("inner", ["", "BU_4DFE", "BU_4DFE/BU_4DFE"])
def test_the_parent_and_the_inner_folder_are_accepted(tmp_path, inner):
    root = create_tree(tmp_path, TREE) / inner
    expected = expand_lines(ENTRIES).replace("BU_4DFE/BU_4DFE/", "BU_4DFE/BU_4DFE/"[len(inner) + bool(inner) :])
    assert format_entries(scan("bu4dfe", root).entries) == expected


def test_a_list_of_sequences_to_exclude(tmp_path):
    create_tree(tmp_path, TREE + "poor.txt = # quality 3 to 5|F001/Fear|f002/Happiness, no onset|M099/Fear|\n")
    result = scan("bu4dfe", tmp_path, exclude="poor.txt")
    excluded = {path: reason for path, reason in result.skipped if "poor" in reason}
    assert excluded == {
        f"BU_4DFE/BU_4DFE/{name}": "listed in poor.txt" for name in ("F001/Fear", "F002/F002/Happiness")
    }
    assert len(result.entries) == 13
    assert "F001/fear" not in result.missing
    assert any("1 names are not sequences of BU-4DFE, e.g. M099/fear" in note for note in result.notes)
    with pytest.raises(CeflError, match=r"gone.txt: no such file \(options.exclude\)"):
        scan("bu4dfe", tmp_path, exclude="gone.txt")


def test_the_static_bu3dfe_is_refused(tmp_path):
    create_tree(
        tmp_path,
        "BU3DFE/F0001/F0001_{AN03WH,NE00WH}_F3D.{wrl,bnd}|BU3DFE/F0001/F0001_AN03WH_F2D.bmp".replace("|", "\n"),
    )
    with pytest.raises(CeflError, match="BU-4DFE, the dynamic set") as error:
        scan("bu4dfe", tmp_path)
    assert "F0001_AN03WH_F2D.bmp" in str(error.value)


def test_an_empty_folder_is_an_error_that_shows_the_layout(tmp_path):
    with pytest.raises(CeflError, match=r"no video of bu4dfe in it; expected(.|\n)*F001/Angry/000.jpg"):
        scan("bu4dfe", tmp_path)
