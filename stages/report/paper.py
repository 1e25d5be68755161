"""What does the paper report? Tables 2 to 9 of Liu et al. 2022, to stand beside what was measured here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reported:
    """CEFLNet's line for a data set: accuracy, its deviation, clip locating accuracy (table 7), all in percent."""

    title: str
    table: int
    accuracy: float
    deviation: float
    locating: float
    protocol: str


CEFLNET = {
    "bu3dfe": Reported("BU-3DFE", 2, 85.33, 3.29, 55.83, "10-fold"),
    "mmi": Reported("MMI", 3, 91.00, 4.36, 67.57, "10-fold (the figures fit clip-wise folds of 20, not subject-wise ones)"),
    "afew": Reported("AFEW", 4, 53.98, 0.40, 45.00, "train -> val (190 of 352 videos)"),
    "dfew": Reported("DFEW", 5, 65.35, 1.13, 47.65, "official 5-fold"),
}
