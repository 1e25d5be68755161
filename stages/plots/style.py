"""Colors, markers and file formats shared by all figures.

Colours tell apart for all common kinds of colour blindness, and in grey: the qualitative ones are Paul Tol's "bright"
set, joined by marker shapes; the sequential maps grow steadily darker."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

TEXT, MUTED, GRID = "#1f2430", "#6a7080", "#c9cdd6"
"""Text and lines, secondary text, grids. On the page these three follow its light or dark theme."""
CELL_TEXT = "#20242f"
"""Dark text on a light cell: stays dark in both themes."""
ACCENT = "#e8590c"
"""The located clip, orange as in the paper."""
QUALITATIVE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#9a9a9a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
CMAP_FRACTION, CMAP_INTENSITY = "Blues", "YlOrRd"
"""Colour maps of confusion matrices and of activation maps."""

matplotlib.use("Agg")
matplotlib.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "text.color": TEXT,
        "axes.labelcolor": TEXT,
        "axes.titlecolor": TEXT,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": TEXT,
        "ytick.labelcolor": TEXT,
        "axes.edgecolor": MUTED,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "text.parse_math": False,  # labels and ids are other people's words; a dollar sign is a dollar sign
        "svg.fonttype": "none",
        "svg.hashsalt": "ceflpipe",
    }
)

_THEME = {TEXT: "var(--ink)", MUTED: "var(--soft-ink)", GRID: "var(--line)"}


def color_of(labels: Sequence[str], label: str) -> str:
    """Return the label's colour; more labels than colours start again, told apart by their markers."""
    return QUALITATIVE[labels.index(label) % len(QUALITATIVE)]


def marker_of(labels: Sequence[str], label: str) -> str:
    return MARKERS[labels.index(label) % len(MARKERS)]


def abbreviate(text: str, most: int = 44) -> str:
    """Return the text, its beginning left out where it is long: ids are paths, and the end tells them apart."""
    return text if len(text) <= most else "…" + text[1 - most :]


def display_label(label: str, most: int = 16) -> str:
    """Return a label for an axis, its end left out where it is long."""
    return label if len(label) <= most else f"{label[: most - 1]}…"


def png(figure: Figure, dpi: int = 144) -> bytes:
    """Return the figure as PNG bytes on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """Return the figure as an inline SVG element: no background, text as text, colours that follow the page's theme.

    Pictures inside it are stored as JPEG. Text is escaped by matplotlib.
    """
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    width, height = figure.get_size_inches() * 96
    head, body = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    size = f'width="{width:.0f}" height="{height:.0f}"'
    root = f'<svg xmlns="http://www.w3.org/2000/svg" {view.group() if view else ""} {size}>'
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'xlink:href="data:image/png;base64,\s*([^"]*)"', _as_jpeg, body)
    for colour, variable in _THEME.items():
        body = body.replace(colour, variable)
    return root + body


def _as_jpeg(match: re.Match[str]) -> str:
    """Return the reference to a PNG picture as one to a JPEG, which is a tenth of it; one with gaps in it stays."""
    data = np.frombuffer(base64.b64decode(match.group(1)), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if picture is None or (picture.ndim == 3 and picture.shape[2] == 4 and picture[..., 3].min() < 255):
        return match.group()
    return f'xlink:href="{jpeg_uri(picture[..., 2::-1])}"'


def jpeg_uri(picture: np.ndarray, quality: int = 82) -> str:
    """Return an RGB picture (H, W, 3) as a data address of a JPEG."""
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} cannot be written as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
