"""MMI: emotion and view from the XML, a reason for every skipped recording, and untrusted XML."""

import pytest
from helpers.dataset_trees import create_tree, expand_lines, format_entries, scan

from ceflpipe.cache.errors import CeflError

DOWNLOAD = "mmi-facial-expression-database_download_2018-03-02_10_11_12/Sessions"
SESSION = '<?xml version="1.0"?>|<session id="{number}"><subject gender="m"/><track view="{view}" type="video"><annotation filename="{stem}.xml"/></track><track view="1"/></session>'
CODED = '<?xml version="1.0"?>|<annotation><Metatag Name="Subject" Value="x"/><Metatag Name="Emotion" Value="{code}"/></annotation>'
UNCODED = '<annotation><Metatag Name="Camera" Value="4"/></annotation>'
BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;">]><annotation><Metatag Name="Emotion" Value="&y;"/></annotation>'
REGIONS = {"left": "0 0 360 576", "right": "360 0 360 576"}


def session(number, stem, view, code="", xml=None, extension="avi"):
    """Return the files of one session as lines of a tree."""
    content = xml or (CODED.replace("{code}", str(code)) if code else UNCODED)
    session_xml = SESSION.replace("{number}", str(number)).replace("{view}", str(view)).replace("{stem}", stem)
    folder = f"{DOWNLOAD}/{number}"
    return f"{folder}/session.xml = {session_xml}\n{folder}/{stem}.{extension}\n{folder}/{stem}.xml = {content}\n"


TREE = (
    session(9, "S005-001", 0, 4)
    + session(10, "S005-002", 0, 1)
    + session(100, "S053-001", 0, 5)  # upright
    + session(101, "S054-001", 0, 6)
    + session(102, "S001-001", 2, 2)  # front on the right
    + session(103, "S003-001", 2, 3)  # front on the left
    + session(104, "S021-001", 2, 3)  # frontal half unknown
    + session(105, "S006-001", 1, 4)  # profile only
    + session(106, "S028-001", 0, 9)  # unknown code
    + session(107, "S028-002", 0)  # coded for action units only
    + session(108, "S028-003", 0, 4, extension="jpg")  # a still image
    + session(109, "S028-004", 0, 4, xml=BOMB)
    + session(110, "S028-005", 0, 4, xml="<annotation><Metatag")
    + session(111, "S030-001", 0, "Happiness")  # a label instead of a code
    + f"{DOWNLOAD}/111/S030-001-oao_aucs.xml = <annotation/>\n"
    + f"{DOWNLOAD}/112/session.xml = <session><track/></session>\n{DOWNLOAD}/112/S030-002.avi\n"
    + f"{DOWNLOAD}/113/S030-003.avi\n{DOWNLOAD}/114/session.xml = <session/>\n{DOWNLOAD}/readme.txt\n"
    + f"{DOWNLOAD}/115/S030-004.AVI\n{DOWNLOAD}/115/Session.xml = <session><track view='0'/></session>\n"
)
ENTRIES = f"""
9/S005-001|{DOWNLOAD}/9/S005-001.avi|happiness|S005||||90
10/S005-002|{DOWNLOAD}/10/S005-002.avi|anger|S005||||90
100/S053-001|{DOWNLOAD}/100/S053-001.avi|sadness|S053
101/S054-001|{DOWNLOAD}/101/S054-001.avi|surprise|S054
102/S001-001|{DOWNLOAD}/102/S001-001.avi|disgust|S001|||||{REGIONS["right"]}
103/S003-001|{DOWNLOAD}/103/S003-001.avi|fear|S003|||||{REGIONS["left"]}
104/S021-001|{DOWNLOAD}/104/S021-001.avi|fear|S021
111/S030-001|{DOWNLOAD}/111/S030-001.avi|happiness|S030||||90
"""
SKIPPED = {
    "105/S006-001.avi": "view 1: the profile only",
    "106/S028-001.avi": "emotion code 9 is not one of options.emotions",
    "107/S028-002.avi": "no emotion in the recording's XML (coded for action units only)",
    "108": "a still image, no video",
    "109/S028-004.avi": "the recording's XML: it declares entities",
    "110/S028-005.avi": "the recording's XML: not XML (unclosed token)",
    "112": "session.xml: no <track view=…> in it",
    "113": "session.xml: no such file",
    "114": "no video in the session",
    "115/S030-004.AVI": "the recording's XML: no such file",
}


def test_every_frontal_recording_with_a_coded_emotion_is_listed(tmp_path):
    result = scan("mmi", create_tree(tmp_path, TREE))
    assert format_entries(result.entries) == expand_lines(ENTRIES)
    assert dict(result.skipped) == {f"{DOWNLOAD}/{path}": reason for path, reason in SKIPPED.items()}


def test_notes_count_codes_and_default_views(tmp_path):
    notes = "\n".join(scan("mmi", create_tree(tmp_path, TREE)).notes)
    assert (
        "1 (anger) 1, 2 (disgust) 1, 3 (fear) 2, 4 (happiness) 2, 5 (sadness) 1, 6 (surprise) 1, 9 (unknown) 1" in notes
    )
    assert "3 front-view recordings are rotated by 90 degrees (options.default_rotation)" in notes
    assert "2 recordings with both views are cropped to one half (options.frontal_half)" in notes
    assert "both views of S021 are searched for faces" in notes
    assert "manifest --dataset mmi --probe" in notes


@pytest.mark.parametrize("inner", [DOWNLOAD.partition("/")[0], DOWNLOAD])
def test_the_download_and_its_sessions_folder_are_accepted(tmp_path, inner):
    root = create_tree(tmp_path, TREE) / inner
    assert format_entries(scan("mmi", root).entries) == expand_lines(ENTRIES).replace(f"{inner}/", "")


def test_sessions_in_nested_folders_of_another_name(tmp_path):
    create_tree(tmp_path, TREE.replace(DOWNLOAD, "renamed/sessions"))
    assert format_entries(scan("mmi", tmp_path).entries) == expand_lines(ENTRIES).replace(DOWNLOAD, "renamed/sessions")


def test_candidate_views_start_with_the_default(tmp_path):
    views = scan("mmi", create_tree(tmp_path, TREE)).views
    views = {video_id: [str(view) for view in candidates] for video_id, candidates in views.items()}
    assert views["9/S005-001"] == ["rotated by 90 degrees", "as recorded", "rotated by 270 degrees"]
    assert views["100/S053-001"] == ["as recorded", "rotated by 90 degrees", "rotated by 270 degrees"]
    assert views["102/S001-001"] == [f"region {REGIONS['right']}", f"region {REGIONS['left']}"]
    assert views["104/S021-001"] == ["as recorded", f"region {REGIONS['left']}", f"region {REGIONS['right']}"]


def test_codes_rotations_halves_and_sizes_can_be_set(tmp_path):
    result = scan(
        "mmi", create_tree(tmp_path, TREE), emotions={4: "anger", 9: "fear"}, default_rotation=270, upright_subjects=("S005",),
        frontal_half={"S021": "right"}, dual_view_size=(320, 160),
    )  # fmt: skip
    assert format_entries(result.entries) == expand_lines(f"""
        9/S005-001|{DOWNLOAD}/9/S005-001.avi|anger|S005
        106/S028-001|{DOWNLOAD}/106/S028-001.avi|fear|S028||||270
        111/S030-001|{DOWNLOAD}/111/S030-001.avi|happiness|S030||||270
    """)


def test_a_list_of_videos_to_include(tmp_path):
    create_tree(tmp_path, TREE + "included.txt = 9|S054-001 # a recording|103/S003-001|S099-009|105|\n")
    result = scan("mmi", tmp_path, include="included.txt")
    assert [entry.id for entry in result.entries] == ["9/S005-001", "101/S054-001", "103/S003-001"]
    assert (f"{DOWNLOAD}/10/S005-002.avi", "not listed in included.txt") in result.skipped
    assert any("included.txt: 1 names match no recording, e.g. S099-009" in note for note in result.notes)


def test_mahnob_laughter_is_refused(tmp_path):
    folder = "Sessions/{1..3}"
    create_tree(tmp_path, f"{folder}/session.xml = <session><track view='0'/></session>\n{folder}/S001-00{{1,2}}.avi\n"
                    f"{folder}/S001-001_mic.wav\n{folder}/laughterAnnotation.csv")  # fmt: skip
    with pytest.raises(CeflError, match="MAHNOB-Laughter"):
        scan("mmi", tmp_path)


def test_an_unknown_option_is_named(tmp_path):
    with pytest.raises(
        CeflError,
        match=r"configs/mmi.yaml: unknown key options.upright_subject; did you mean options.upright_subjects\?",
    ):
        scan("mmi", tmp_path, upright_subject=["S001"])
    with pytest.raises(CeflError, match=r"options.default_rotation: input should be 0, 90, 180 or 270, found 45"):
        scan("mmi", tmp_path, default_rotation=45)
