"""CK+, RAVDESS, CREMA-D, Oulu-CASIA, FERV39k and eNTERFACE'05, each with its irregularities."""

from collections import Counter

import pytest
from helpers.dataset_trees import create_tree, expand_lines, format_entries, scan

from ceflpipe.cache.errors import CeflError

CKPLUS = """
CK+/cohn-kanade-images/S005/001/S005_001_000000{01..11}.png
CK+/cohn-kanade-images/S005/002/S005_002_000000{01..03}.png
CK+/cohn-kanade-images/S010/001/S010_001_000000{01..02}.png
CK+/cohn-kanade-images/S010/002/S010_002_000000{01..02}.png
CK+/cohn-kanade-images/S010/003/S010_003_000000{01..02}.png
CK+/cohn-kanade-images/S010/.DS_Store
CK+/cohn-kanade-images/S999/001/S999_001_000000{01..02}.png
CK+/Emotion/Emotion/S005/001/S005_001_00000011_emotion.txt =    3.0000000e+00|
CK+/Emotion/Emotion/S005/002/
CK+/Emotion/Emotion/S010/001/S010_001_00000002_emotion.txt = 2.0|
CK+/Emotion/Emotion/S010/002/S010_002_00000002_emotion.txt = 0.0|
CK+/Emotion/Emotion/S010/003/S010_003_00000002_emotion.txt = inf|
CK+/Emotion/Emotion/S011/001/S011_001_00000009_emotion.txt = 1.0|
CK+/Emotion/Emotion/S999/001/S999_001_00000002_emotion.txt = 7.0|
CK+/Landmarks/S005/001/S005_001_00000001_landmarks.txt
CK+/FACS/S005/001/S005_001_00000011_facs.txt
"""


def test_ckplus_lists_labelled_sequences_with_their_apex(tmp_path):
    result = scan("ckplus", create_tree(tmp_path, CKPLUS))
    images = "CK+/cohn-kanade-images"
    assert format_entries(result.entries) == expand_lines(f"""
        S005/001|{images}/S005/001|disgust|S005||1|10
        S010/001|{images}/S010/001|contempt|S010||2|1
        S999/001|{images}/S999/001|surprise|S999||3|1
    """)
    assert result.skipped == [
        (f"{images}/S005/002", "no emotion file: CK+ labels 327 of its 593 sequences"),
        (f"{images}/S010/002", "emotion 0 is not one of options.emotions"),
        (f"{images}/S010/003", "emotion unreadable is not one of options.emotions"),
    ]
    assert result.missing == ["the images of S011/001"]


def test_ckplus_folds_are_round_robin_over_labelled_subjects(tmp_path):
    number = "S{001..023}"
    create_tree(tmp_path, f"i/{number}/001/1.png\ne/{number}/001/x_emotion.txt = 5.0|\ni/S500/001/1.png")
    folds = {entry.subject: entry.fold for entry in scan("ckplus", tmp_path).entries}
    assert folds == {f"S{n:03d}": str((n - 1) % 10 + 1) for n in range(1, 24)}


def test_ckplus_without_emotion_files_is_an_error(tmp_path):
    with pytest.raises(CeflError, match="no emotion files"):
        scan("ckplus", create_tree(tmp_path, "cohn-kanade-images/S005/001/1.png"))


RAVDESS = """
Video_Speech_Actor_01/Actor_01/{01,02}-01-0{1..8}-01-01-01-01.mp4
Video_Speech_Actor_01/Actor_01/03-01-01-01-01-01-01.wav
Video_Song_Actor_01/Actor_01/{01,02}-02-03-01-01-01-01.mp4
Actor_24/02-01-05-02-02-02-24.mp4
Actor_24/copy of 02-01-05-02-02-02-24.mp4
other/Actor_24/02-01-05-02-02-02-24.mp4
"""


def test_ravdess_lists_each_performance_once(tmp_path):
    result = scan("ravdess", create_tree(tmp_path, RAVDESS))
    home = "Video_Speech_Actor_01/Actor_01"
    words = ["neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise"]
    expected = [
        f"02-01-0{n}-01-01-01-01|{home}/02-01-0{n}-01-01-01-01.mp4|{w}|actor-01||1" for n, w in enumerate(words, 1)
    ]
    expected.append("02-01-05-02-02-02-24|Actor_24/02-01-05-02-02-02-24.mp4|anger|actor-24||6")
    assert format_entries(result.entries).splitlines() == expected
    assert Counter(reason for _, reason in result.skipped) == {
        "modality 01: the same performances in other files (options.modality)": 8,
        "channel 02, song (options.channel)": 2,
        "its name is not seven numbers of two digits": 1,
        "another file of a video that is already listed": 1,
    }


def test_ravdess_with_audio_or_song(tmp_path):
    create_tree(tmp_path, RAVDESS)
    assert [entry.id[:2] for entry in scan("ravdess", tmp_path, modality="01").entries] == ["01"] * 8
    assert [entry.id for entry in scan("ravdess", tmp_path, channel="02").entries] == ["02-02-03-01-01-01-01"]


def test_ravdess_six_folds_of_four_actors(tmp_path):
    entries = scan("ravdess", create_tree(tmp_path, "02-01-03-01-01-01-{01..24}.mp4")).entries
    assert {entry.subject: entry.fold for entry in entries} == {
        f"actor-{n:02d}": str((n - 1) // 4 + 1) for n in range(1, 25)
    }


def test_cremad_reads_file_names(tmp_path):
    result = scan("cremad", create_tree(tmp_path, """
        CREMA-D/VideoFlash/1001_DFA_{ANG,DIS,FEA,HAP,NEU,SAD}_XX.flv
        CREMA-D/VideoFlash/1091_WSI_SAD_HI.flv
        CREMA-D/VideoFlash/1001_IEO_SUR_LO.flv
        CREMA-D/VideoFlash/readme.flv
        CREMA-D/VideoMP4/1001_DFA_ANG_XX.mp4
        CREMA-D/AudioWAV/1001_DFA_ANG_XX.wav
    """))  # fmt: skip
    home = "CREMA-D/VideoFlash"
    words = ["ANG anger", "DIS disgust", "FEA fear", "HAP happiness", "NEU neutral", "SAD sadness"]
    expected = [f"1001_DFA_{c}_XX|{home}/1001_DFA_{c}_XX.flv|{w}|1001||1" for c, w in map(str.split, words)]
    assert format_entries(result.entries).splitlines() == [
        *expected,
        f"1091_WSI_SAD_HI|{home}/1091_WSI_SAD_HI.flv|sadness|1091||5",
    ]
    assert result.skipped == [
        (f"{home}/1001_IEO_SUR_LO.flv", "surprise is not in labels: of the configuration"),
        (f"{home}/readme.flv", "its name is not actor_sentence_emotion_level"),
        ("CREMA-D/VideoMP4/1001_DFA_ANG_XX.mp4", "another file of a video that is already listed"),
    ]


def test_cremad_five_folds_of_actors_in_order(tmp_path):
    create_tree(tmp_path, "{1001..1091}_DFA_ANG_XX.flv")
    assert Counter(entry.fold for entry in scan("cremad", tmp_path).entries) == {
        "1": 18,
        "2": 18,
        "3": 18,
        "4": 18,
        "5": 19,
    }


@pytest.mark.parametrize("parent", ["Oulu_CASIA_NIR_VIS/", "B_OriginalImg/OriginalImg/", ""])
def test_oulucasia_one_camera_and_lighting(tmp_path, parent):
    create_tree(tmp_path, f"""
        {parent}{{VL,NI}}/{{Strong,Weak,Dark}}/P001/{{Anger,Disgust,Fear,Happiness,Sadness,Surprise}}/{{000..004}}.jpeg
        {parent}VL/Strong/P080/Anger/{{000..019}}.jpeg
        {parent}VL/Strong/P080/Fear/
        {parent}VL/Strong/P080/Neutral/000.jpeg
        Z_Processed/VL/Strong/P001/Anger/000.jpeg
    """)  # fmt: skip
    result = scan("oulucasia", tmp_path)
    home = f"{parent}VL/Strong"
    folders = {"Anger": "anger", "Disgust": "disgust", "Fear": "fear", "Happiness": "happiness", "Sadness": "sadness", "Surprise": "surprise"}  # fmt: skip
    expected = [f"P001/{label}|{home}/P001/{name}|{label}|P001|||4" for name, label in folders.items()]
    assert format_entries(result.entries).splitlines() == [*expected, f"P080/anger|{home}/P080/Anger|anger|P080|||19"]
    assert len(result.missing) == 480 - 7
    assert "P080/fear" in result.missing
    assert ("Z_Processed/VL/Strong", "another copy of VL/Strong") in result.skipped
    assert (f"{home}/P080/Fear", "no images in it") in result.skipped
    assert len(scan("oulucasia", tmp_path, camera="NI", light="Dark").entries) == 6


FERV39K = """
FERV39k/2_ClipsforFaceCrop/2_ClipsforFaceCrop/Action/{Sad,Angry}/{0010,0011}/{1..12}.jpg
FERV39k/2_ClipsforFaceCrop/2_ClipsforFaceCrop/Daily Life/Happy/0001/01.jpg
FERV39k/2_ClipsforFaceCrop/2_ClipsforFaceCrop/Action/Sad/0099/
FERV39k/4_setups/All_scenes/train_All.csv = Action/Sad/0010 Sad|Action/Angry/0010 Angry|Daily Life/Happy/0001 Happy|
FERV39k/4_setups/All_scenes/test_All.csv = Action/Sad/0011 Fear|Action/Sad/0099 Sad|
FERV39k/4_setups/Action/train_Action.csv = Action/Angry/0011 Angry|
FERV39k/4_setups/Action/test_Action.csv = Action/Angry/0010 Angry|
"""


def test_ferv39k_follows_its_lists(tmp_path):
    result = scan("ferv39k", create_tree(tmp_path, FERV39K))
    home = "FERV39k/2_ClipsforFaceCrop/2_ClipsforFaceCrop"
    assert (
        sorted(format_entries(result.entries).splitlines())
        == expand_lines(f"""
        Action/Angry/0010|{home}/Action/Angry/0010|anger||train
        Action/Sad/0010|{home}/Action/Sad/0010|sadness||train
        Action/Sad/0011|{home}/Action/Sad/0011|fear||test
        Action/Sad/0099|FERV39k/2_ClipsforFaceCrop/Action/Sad/0099|sadness||test
        Daily Life/Happy/0001|{home}/Daily Life/Happy/0001|happiness||train
    """).splitlines()
    )
    assert result.missing == ["Action/Sad/0099"]
    assert result.skipped == [(f"{home}/Action/Angry/0011", "in neither list")]
    assert (
        "1 clips are in a folder of another expression than their label in the list, e.g. Action/Sad/0011"
        in result.notes[0]
    )
    assert [entry.id for entry in scan("ferv39k", tmp_path, setup="action").entries] == [
        "Action/Angry/0011",
        "Action/Angry/0010",
    ]
    with pytest.raises(CeflError, match="no lists of Crime below it"):
        scan("ferv39k", tmp_path, setup="Crime")


ENTERFACE = """
enterface database/subject 1/anger/sentence {1..5}/s1_an_{1..5}.avi
enterface database/subject 3/fear/sentence 5/s_3_fe_5.avi
enterface database/subject 11/happiness/sentence 2/s12_ha_2.avi
enterface database/subject 16/surprise/sentence 3/s16_su_3avi
enterface database/subject 16/surprise/sentence 3/Thumbs.db
enterface database/subject 6/subject 6.avi
enterface database/subject 7/anger/uncut.avi
enterface database/subject 44/sadness/sentence 1/s44_sa_1.avi
enterface database/info.avi
"""


def test_enterface_labels_come_from_folders(tmp_path):
    create_tree(tmp_path, ENTERFACE.replace("sentence {1..5}/s1_an_{1..5}.avi", "sentence 1/s1_an_1.avi"))
    result = scan("enterface", tmp_path)
    home = "enterface database"
    assert format_entries(result.entries) == expand_lines(f"""
        1/anger/1/s1_an_1|{home}/subject 1/anger/sentence 1/s1_an_1.avi|anger|1||1
        3/fear/5/s_3_fe_5|{home}/subject 3/fear/sentence 5/s_3_fe_5.avi|fear|3||1
        11/happiness/2/s12_ha_2|{home}/subject 11/happiness/sentence 2/s12_ha_2.avi|happiness|11||2
        16/surprise/3/s16_su_3|{home}/subject 16/surprise/sentence 3/s16_su_3avi|surprise|16||2
        44/sadness/1/s44_sa_1|{home}/subject 44/sadness/sentence 1/s44_sa_1.avi|sadness|44||5
    """)
    assert sorted(result.skipped) == [
        (f"{home}/info.avi", "not in a folder of a subject and an emotion"),
        (f"{home}/subject 6/subject 6.avi", "not in a folder of a subject and an emotion"),
        (f"{home}/subject 7/anger/uncut.avi", "not one sentence: an uncut recording"),
    ]


def test_enterface_five_folds_of_subjects_in_order(tmp_path):
    create_tree(tmp_path, "subject {1..44}/anger/sentence 1/s_an_1.avi")
    folds = {int(entry.subject): entry.fold for entry in scan("enterface", tmp_path).entries}
    assert Counter(folds.values()) == {"1": 9, "2": 9, "3": 9, "4": 8, "5": 8, "": 1}
    assert {n for n, fold in folds.items() if fold == "3"} == set(range(20, 29))
    assert folds[6] == ""
