"""Imitations of data sets with faces: a working folder with an encoder, and the sessions of MMI."""

import re
import shutil

from helpers.cli import ROOT
from helpers.fake_datasets import create_tree
from helpers.fake_videos import LABELS, lying, performance, side_by_side, write_clip

ACTORS = 3
SUBJECTS = ["S001", "S003", "S005", "S015", "S030", "S031", "S032", "S053", "S054", "S099"]


def make_workspace(home, name, encoder, **changes):
    """Create the working folder of a user: an encoder, and the configuration of a data set with small crops.

    ``changes`` are regular expressions and their replacements in the configuration; each must match.
    """
    (home / "artifacts/weights").mkdir(parents=True)
    shutil.copy(encoder, home / "artifacts/weights/random.safetensors")
    (home / "configs").mkdir()
    text = (ROOT / f"configs/{name}.yaml").read_text()
    for pattern, replacement in {r"encoder: imagenet": "encoder: random, crop_size: 64", **changes}.items():
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    (home / f"configs/{name}.yaml").write_text(text)
    return home


def session_xml(number, view):
    return f"{number}/session.xml = <session><track view='{view}'/></session>\n"


def emotion_xml(number, stem, code):
    return f"{number}/{stem}.xml = <annotation><Metatag Name='Emotion' Value='{code}'/></annotation>\n"


def create_mmi(root):
    """Ten subjects, six expressions: rotated, upright, or both views side by side; and four sessions to skip."""
    number = 0
    for index, subject in enumerate(SUBJECTS):
        for code, label in enumerate(LABELS, start=1):
            number += 1
            front = performance(1 + index % ACTORS, label)
            dual = subject in ("S001", "S003", "S015")
            create_tree(
                root, session_xml(number, 2 if dual else 0) + emotion_xml(number, f"{subject}-{number:03d}", code)
            )
            if dual:
                profile = performance(1, label, yaw=70.0)
                frames = side_by_side(profile, front) if subject == "S001" else side_by_side(front, profile)
            else:
                frames = front if subject in ("S053", "S054") else lying(front)
            write_clip(root / f"{number}/{subject}-{number:03d}.avi", frames)
    create_tree(root, session_xml(500, 1) + emotion_xml(500, "S001-500", 4) + "500/S001-500.avi")
    create_tree(root, session_xml(501, 0) + emotion_xml(501, "S001-501", 4) + "501/S001-501.png")
    create_tree(root, session_xml(502, 0) + emotion_xml(502, "S001-502", 11) + "502/S001-502.avi")
    create_tree(root, session_xml(503, 0) + emotion_xml(503, "S099-503", 4) + "503/S099-503.avi = damaged")
