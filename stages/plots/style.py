"""Colors, markers, layout and file formats shared by all figures.

The qualitative colors are Paul Tol's "bright" scheme, which is safe for color blindness, and every label also has a marker
of its own. The sequential color maps get steadily darker, so they also read in grayscale.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...cache.features import FrameStatus

TEXT, MUTED, GRID = "#1f2430", "#6a7080", "#c9cdd6"
"""Text and lines, secondary text, grids. On the page these three follow its light or dark theme."""
CELL_TEXT = "#20242f"
"""Dark text on a light cell; the same in both themes."""
ACCENT = "#e8590c"
"""The located clip, orange as in the paper."""
QUALITATIVE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#9a9a9a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
CMAP_FRACTION, CMAP_INTENSITY = "Blues", "YlOrRd"
"""Color maps of confusion matrices and of activation maps."""
STATUS_COLORS = {
    FrameStatus.DETECTED: QUALITATIVE[0],
    FrameStatus.INTERPOLATED: QUALITATIVE[4],
    FrameStatus.GIVEN: MUTED,
    FrameStatus.MISSING: ACCENT,
}

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
        "text.parse_math": False,  # a dollar sign in a label or id is not a formula
        "svg.fonttype": "none",
        "svg.hashsalt": "ceflpipe",
    }
)

_THEME = {TEXT: "var(--ink)", MUTED: "var(--soft-ink)", GRID: "var(--line)"}


def color_of(labels: Sequence[str], label: str) -> str:
    """Return the color of a label. With more labels than colors they repeat, and markers tell them apart."""
    return QUALITATIVE[labels.index(label) % len(QUALITATIVE)]


def marker_of(labels: Sequence[str], label: str) -> str:
    return MARKERS[labels.index(label) % len(MARKERS)]


def abbreviate(text: str, max_length: int = 44) -> str:
    """Shorten a long text at its start: ids are paths, which differ at the end."""
    return text if len(text) <= max_length else "…" + text[1 - max_length :]


def display_label(label: str, max_length: int = 16) -> str:
    """Shorten a long label at its end."""
    return label if len(label) <= max_length else f"{label[: max_length - 1]}…"


def font_file() -> Path:
    """Return DejaVu Sans, which has Latin, Greek, Cyrillic, Arabic and more, for text in pictures that are no figures."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def add_axes_inches(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes whose position and size are given in inches from the figure's lower left corner."""
    figure_width, figure_height = figure.get_size_inches()
    return figure.add_axes((left / figure_width, bottom / figure_height, width / figure_width, height / figure_height))


def png(figure: Figure, dpi: int = 144) -> bytes:
    """Return the figure as PNG bytes on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, tooltips: Mapping[str, str] | None = None) -> str:
    """Return the figure as an inline SVG element: no background, text as text, colors of the page's theme, images as JPEG.

    ``tooltips`` maps the gid of an artist to the text that a browser shows over it (an SVG title). All text is escaped.
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    text = buffer.getvalue()
    head, body = text[text.index("<svg") :].split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    width, height = figure.get_size_inches() * 96
    root = f'<svg xmlns="http://www.w3.org/2000/svg" {view.group() if view else ""} width="{width:.0f}" height="{height:.0f}">'
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'xlink:href="data:image/png;base64,\s*([^"]*)"', _as_jpeg, body)
    for color, variable in _THEME.items():
        body = body.replace(color, variable)
    if tooltips:
        titles = {html.escape(gid): html.escape(text) for gid, text in tooltips.items()}
        body = re.sub(
            r'<g id="([^"]*)">', lambda g: g[0] + (f"<title>{titles[g[1]]}</title>" if g[1] in titles else ""), body
        )
    return root + body


def _as_jpeg(match: re.Match[str]) -> str:
    """Replace an embedded PNG by a JPEG, a tenth of its size; an image with transparent pixels stays PNG."""
    data = np.frombuffer(base64.b64decode(match.group(1)), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or (image.shape[2] == 4 and image[..., 3].min() < 255):
        return match.group()
    encoded, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., :3]), [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not encoded:
        return match.group()
    return f'xlink:href="data:image/jpeg;base64,{base64.b64encode(jpeg.tobytes()).decode()}"'
