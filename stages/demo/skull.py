"""What shape a head has: its outline and its height field at rest."""

import cv2
import numpy as np

from .actors import Actor
from .canvas import Array, Canvas, ramp

CENTRE_Y = 0.1


def outline(actor: Actor, grow: float = 0.0, count: int = 360) -> tuple[Array, Array]:
    """The head seen from the front in polar form about (0, CENTRE_Y): angles (count,) and radii (count,) in units.

    The angle is 0 at the top of the head and pi at the chin; only the right half is given, the left mirrors it.
    """
    wide, jaw, chin = actor.head_width, actor.jaw, actor.chin_y
    half = np.array(
        [
            (0.0, -1.66),
            (0.55, -1.54),
            (0.93 * wide, -1.2),
            (1.13 * wide, -0.65),
            (1.16 * wide, -0.1),
            (1.1 * wide, 0.4),
            (0.99 * wide * (0.5 + 0.5 * jaw), 0.85),
            (0.86 * wide * jaw, 1.2),
            (0.62 * jaw * wide, chin - 0.26),
            (0.31 * actor.chin_width * wide, chin - 0.04),
            (0.0, chin),
        ]
    )
    x, y = half[:, 0], half[:, 1] - CENTRE_Y
    angles = np.linspace(0, np.pi, count)
    radii = np.interp(angles, np.arctan2(x, -y), np.hypot(x, y))
    around = np.concatenate([radii[::-1], radii, radii[::-1]])
    width = count // 22
    kernel = np.exp(-0.5 * (np.arange(-3 * width, 3 * width + 1) / width) ** 2)
    smooth = np.convolve(around, kernel / kernel.sum(), "same")[count : 2 * count]
    return angles.astype(np.float32), (smooth + grow).astype(np.float32)


def radius(actor: Actor, canvas: Canvas, grow: float = 0.0) -> Array:
    """How far out every pixel lies: 0 at the middle of the head, 1 on its outline, float32 (height, width)."""
    angles, radii = outline(actor, grow)
    down = canvas.y - CENTRE_Y
    return np.hypot(canvas.x, down) / np.interp(np.arctan2(np.abs(canvas.x), -down), angles, radii).astype(np.float32)


def relief(actor: Actor, canvas: Canvas) -> Array:
    """The height of the skin towards the camera at rest, in units, float32 (height, width)."""
    bump, pair = canvas.bump, canvas.pair
    r = radius(actor, canvas)
    z = 1.12 * np.sqrt(np.clip(1 - np.minimum(r, 1) ** 2.9, 0.0, 1))
    z += actor.brow_ridge * 0.05 * pair(0.45, actor.brow_y + 0.04, 0.34, 0.09)
    z -= 0.12 * pair(0.47, -0.02, 0.24, 0.17) + 0.1 * pair(0.25, -0.02, 0.1, 0.13)
    z += 0.075 * pair(0.5, 0.0, 0.19, 0.12)
    z -= 0.03 * pair(0.42, 0.2, 0.2, 0.05) * (0.6 + actor.age)
    z += 0.07 * actor.cheeks * pair(0.7, 0.46, 0.26, 0.2) + 0.05 * pair(0.45, 0.62, 0.22, 0.2)
    z -= 0.05 * pair(0.78, 0.98, 0.2, 0.22) * (1.2 - 0.4 * actor.cheeks)
    z -= 0.05 * pair(1.0, -0.45, 0.15, 0.3)
    z += 0.05 * bump(0, -0.8, 0.5, 0.3)
    z += _nose(actor, canvas)
    mouth = actor.mouth_y
    z += 0.09 * bump(0, mouth - 0.02, 0.36, 0.24)
    z -= 0.022 * bump(0, mouth - 0.19, 0.035, 0.06) - 0.012 * pair(0.075, mouth - 0.19, 0.03, 0.06)
    z -= 0.055 * bump(0, mouth + 0.29, 0.24, 0.055)
    z += 0.11 * bump(0, actor.chin_y - 0.22, 0.22 * actor.chin_width + 0.02, 0.14)
    return cv2.GaussianBlur(z.astype(np.float32), (0, 0), 0.014 * canvas.detail)


def _nose(actor: Actor, canvas: Canvas) -> Array:
    tip, wide = actor.nose_y, actor.nose_wide
    rise = np.interp(
        canvas.y[:, 0],
        [-0.35, -0.1, 0.1, tip - 0.2, tip - 0.03, tip + 0.05, tip + 0.12, tip + 0.2],
        [0.0, 0.055, 0.11, 0.24, 0.37, 0.35, 0.2, 0.0],
    ).astype(np.float32)
    rise = cv2.GaussianBlur(rise[:, None], (1, 0), sigmaX=0.1, sigmaY=0.03 * canvas.detail)
    spread = np.interp(canvas.y, [-0.3, 0.05, tip - 0.15, tip + 0.02], [0.13, 0.1, 0.115 * wide, 0.14 * wide])
    ridge = rise * np.exp(-0.5 * (canvas.x / spread.astype(np.float32)) ** 2)
    wings = 0.15 * canvas.pair(0.185 * wide, tip + 0.055, 0.062 * wide, 0.068)
    return actor.nose_high * (ridge + wings)


def nostrils(actor: Actor, canvas: Canvas) -> Array:
    """Where the nostrils are, 0..1."""
    across = (np.abs(canvas.x) - 0.092 * actor.nose_wide) / (0.058 * actor.nose_wide)
    down = (canvas.y - actor.nose_y - 0.135 + 0.22 * (np.abs(canvas.x) - 0.092 * actor.nose_wide)) / 0.03
    return 1 - ramp(np.hypot(across, down), 0.55, 1.25)


def depth(canvas: Canvas, actor: Actor) -> Array:
    """A smooth depth for turning the head, whose slope stays gentle at the outline, float32 (height, width)."""
    r = radius(actor, canvas, grow=0.12)
    z = 1.0 * np.clip(1 - r**2, 0, 1) + 0.28 * actor.nose_high * canvas.bump(0, actor.nose_y, 0.2, 0.22)
    return cv2.GaussianBlur(z.astype(np.float32), (0, 0), 0.06 * canvas.detail)
