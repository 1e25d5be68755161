"""MMI: emotion and view come from the XML by name, every recording that is not taken has a reason, nothing is trusted."""

import pytest
from helpers.fake_datasets import expect, lines, plant, scan

from ceflpipe.cache.errors import CeflError

HOME = "mmi-facial-expression-database_download_2018-03-02_10_11_12/Sessions"
SESSION = '<?xml version="1.0"?>|<session id="{number}"><subject gender="m"/><track view="{view}" type="video"><annotation filename="{stem}.xml"/></track><track view="1"/></session>'
CODED = '<?xml version="1.0"?>|<annotation><Metatag Name="Subject" Value="x"/><Metatag Name="Emotion" Value="{code}"/></annotation>'
UNCODED = '<annotation><Metatag Name="Camera" Value="4"/></annotation>'
BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;">]><annotation><Metatag Name="Emotion" Value="&y;"/></annotation>'
REGIONS = {"left": "0 0 360 576", "right": "360 0 360 576"}


def session(number, stem, view, code="", xml=None, ending="avi"):
    """Return the lines of the tree for one session."""
    content = xml or (CODED.replace("{code}", str(code)) if code else UNCODED)
    described = SESSION.replace("{number}", str(number)).replace("{view}", str(view)).replace("{stem}", stem)
    place = f"{HOME}/{number}"
    return f"{place}/session.xml = {described}\n{place}/{stem}.{ending}\n{place}/{stem}.xml = {content}\n"


TREE = (
    session(9, "S005-001", 0, 4)
    + session(10, "S005-002", 0, 1)
    + session(100, "S053-001", 0, 5)  # stands upright
    + session(101, "S054-001", 0, 6)
    + session(102, "S001-001", 2, 2)  # front on the right
    + session(103, "S003-001", 2, 3)  # front on the left
    + session(104, "S021-001", 2, 3)  # nobody knows where the front is
    + session(105, "S006-001", 1, 4)  # profile only
    + session(106, "S028-001", 0, 9)  # a code nobody knows
    + session(107, "S028-002", 0)  # coded for action units only
    + session(108, "S028-003", 0, 4, ending="jpg")  # a still
    + session(109, "S028-004", 0, 4, xml=BOMB)
    + session(110, "S028-005", 0, 4, xml="<annotation><Metatag")
    + session(111, "S030-001", 0, "Happiness")  # a word instead of a code
    + f"{HOME}/111/S030-001-oao_aucs.xml = <annotation/>\n"
    + f"{HOME}/112/session.xml = <session><track/></session>\n{HOME}/112/S030-002.avi\n"
    + f"{HOME}/113/S030-003.avi\n{HOME}/114/session.xml = <session/>\n{HOME}/readme.txt\n"
    + f"{HOME}/115/S030-004.AVI\n{HOME}/115/Session.xml = <session><track view='0'/></session>\n"
)
ROWS = f"""
9/S005-001|{HOME}/9/S005-001.avi|happiness|S005||||90
10/S005-002|{HOME}/10/S005-002.avi|anger|S005||||90
100/S053-001|{HOME}/100/S053-001.avi|sadness|S053
101/S054-001|{HOME}/101/S054-001.avi|surprise|S054
102/S001-001|{HOME}/102/S001-001.avi|disgust|S001|||||{REGIONS["right"]}
103/S003-001|{HOME}/103/S003-001.avi|fear|S003|||||{REGIONS["left"]}
104/S021-001|{HOME}/104/S021-001.avi|fear|S021
111/S030-001|{HOME}/111/S030-001.avi|happiness|S030||||90
"""
LEFT_OUT = {
    "105/S006-001.avi": "view 1: the profile only",
    "106/S028-001.avi": "emotion code 9 is not one of options.emotions",
    "107/S028-002.avi": "no emotion in the recording's XML (coded for action units only)",
    "108": "a still picture, no video",
    "109/S028-004.avi": "the recording's XML: it declares entities",
    "110/S028-005.avi": "the recording's XML: not XML (unclosed token)",
    "112": "session.xml: no <track view=…> in it",
    "113": "session.xml: no such file",
    "114": "no video in the session",
    "115/S030-004.AVI": "the recording's XML: no such file",
}


def test_every_recording_of_a_coded_emotion_with_a_front_view(tmp_path):
    found = scan("mmi", plant(tmp_path, TREE))
    assert lines(found.entries) == expect(ROWS)
    assert dict(found.skipped) == {f"{HOME}/{path}": reason for path, reason in LEFT_OUT.items()}


def test_the_notes_give_the_histogram_of_codes_and_what_was_done_by_rule(tmp_path):
    notes = "\n".join(scan("mmi", plant(tmp_path, TREE)).notes)
    assert (
        "1 (anger) 1, 2 (disgust) 1, 3 (fear) 2, 4 (happiness) 2, 5 (sadness) 1, 6 (surprise) 1, 9 (unknown) 1" in notes
    )
    assert "3 front-view recordings are turned by 90 degrees, by rule" in notes
    assert "of 2 recordings with both views one half is cut out, by rule" in notes
    assert "both views of S021 are searched" in notes
    assert "manifest --dataset mmi --probe" in notes


@pytest.mark.parametrize("inner", [HOME.partition("/")[0], HOME])
def test_the_download_or_its_sessions_will_do(tmp_path, inner):
    root = plant(tmp_path, TREE) / inner
    assert lines(scan("mmi", root).entries) == expect(ROWS).replace(f"{inner}/", "")


def test_sessions_of_another_name_and_unzipped_twice(tmp_path):
    plant(tmp_path, TREE.replace(HOME, "mine/mine"))
    assert lines(scan("mmi", tmp_path).entries) == expect(ROWS).replace(HOME, "mine/mine")


def test_every_way_to_look_at_a_video_is_known_the_rules_first(tmp_path):
    views = scan("mmi", plant(tmp_path, TREE)).views
    seen = {name: [str(view) for view in ways] for name, ways in views.items()}
    assert seen["9/S005-001"] == ["turned by 90 degrees", "as it is", "turned by 270 degrees"]
    assert seen["100/S053-001"] == ["as it is", "turned by 90 degrees", "turned by 270 degrees"]
    assert seen["102/S001-001"] == [f"region {REGIONS['right']}", f"region {REGIONS['left']}"]
    assert seen["104/S021-001"] == ["as it is", f"region {REGIONS['left']}", f"region {REGIONS['right']}"]


def test_codes_sides_and_sizes_can_be_set(tmp_path):
    found = scan(
        "mmi", plant(tmp_path, TREE), emotions={4: "anger", 9: "fear"}, lying=270, upright=("S005",),
        frontal_half={"S021": "right"}, both_size=(320, 160),
    )  # fmt: skip
    assert lines(found.entries) == expect(f"""
        9/S005-001|{HOME}/9/S005-001.avi|anger|S005
        106/S028-001|{HOME}/106/S028-001.avi|fear|S028||||270
        111/S030-001|{HOME}/111/S030-001.avi|happiness|S030||||270
    """)


def test_a_lab_can_pin_its_own_videos(tmp_path):
    plant(tmp_path, TREE + "ours.txt = 9|S054-001 # a recording|103/S003-001|S099-009|105|\n")
    found = scan("mmi", tmp_path, include="ours.txt")
    assert [row.id for row in found.entries] == ["9/S005-001", "101/S054-001", "103/S003-001"]
    assert (f"{HOME}/10/S005-002.avi", "not listed in ours.txt") in found.skipped
    assert any("ours.txt: 1 names match no recording, e.g. S099-009" in note for note in found.notes)


def test_mahnob_laughter_is_told_apart(tmp_path):
    place = "Sessions/{1..3}"
    plant(tmp_path, f"{place}/session.xml = <session><track view='0'/></session>\n{place}/S001-00{{1,2}}.avi\n"
                    f"{place}/S001-001_mic.wav\n{place}/laughterAnnotation.csv")  # fmt: skip
    with pytest.raises(CeflError, match="MAHNOB-Laughter"):
        scan("mmi", tmp_path)


def test_an_option_that_is_none_is_named(tmp_path):
    with pytest.raises(
        CeflError, match=r"configs/mmi.yaml: unknown key options.upwright; did you mean options.upright\?"
    ):
        scan("mmi", tmp_path, upwright=["S001"])
    with pytest.raises(CeflError, match=r"options.lying: input should be 0, 90, 180 or 270, found 45"):
        scan("mmi", tmp_path, lying=45)
