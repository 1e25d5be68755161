"""Look-alike data sets with real faces: a working folder with an encoder, and MMI's sessions."""

import re
import shutil

from helpers.cli import ROOT
from helpers.fake_datasets import plant
from helpers.fake_videos import LABELS, film, lying, performance, side_by_side

ACTORS = 3
SUBJECTS = ["S001", "S003", "S005", "S015", "S030", "S031", "S032", "S053", "S054", "S099"]


def workplace(home, name, encoder, **changes):
    """Make a folder as a user has it: an encoder, and the data set's configuration with few pixels."""
    (home / "artifacts/weights").mkdir(parents=True)
    shutil.copy(encoder, home / "artifacts/weights/random.safetensors")
    (home / "configs").mkdir()
    text = (ROOT / f"configs/{name}.yaml").read_text()
    wanted = {
        "encoder: imagenet": "encoder: random",
        r"extract: \{.*\}": "extract: {encoder: random, crop_size: 64}",
        **changes,
    }
    for pattern, replacement in wanted.items():
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    (home / f"configs/{name}.yaml").write_text(text)
    return home


def described(number, view):
    return f"{number}/session.xml = <session><track view='{view}'/></session>\n"


def coded(number, stem, code):
    return f"{number}/{stem}.xml = <annotation><Metatag Name='Emotion' Value='{code}'/></annotation>\n"


def mmi(root):
    """Ten subjects, six expressions: lying, upright, or both views side by side; and four sessions that do not count."""
    number = 0
    for place, subject in enumerate(SUBJECTS):
        for code, label in enumerate(LABELS, start=1):
            number += 1
            front = performance(1 + place % ACTORS, label)
            both = subject in ("S001", "S003", "S015")
            plant(root, described(number, 2 if both else 0) + coded(number, f"{subject}-{number:03d}", code))
            if both:
                aside = performance(1, label, yaw=70.0)
                frames = side_by_side(aside, front) if subject == "S001" else side_by_side(front, aside)
            else:
                frames = front if subject in ("S053", "S054") else lying(front)
            film(root / f"{number}/{subject}-{number:03d}.avi", frames)
    plant(root, described(500, 1) + coded(500, "S001-500", 4) + "500/S001-500.avi")
    plant(root, described(501, 0) + coded(501, "S001-501", 4) + "501/S001-501.png")
    plant(root, described(502, 0) + coded(502, "S001-502", 11) + "502/S001-502.avi")
    plant(root, described(503, 0) + coded(503, "S099-503", 4) + "503/S099-503.avi = damaged")
