"""How light falls on the skin: from a height field and a colour to a lit picture."""

import cv2
import numpy as np

from .canvas import Array, vector

# Lit skin is not a grey ramp: red light travels through it, so that shadows turn warm.
ABSORBED = (0.0, 0.045, 0.063)
GLOWING = (1.0, 0.25, 0.1)


def direction(angle: float) -> Array:
    """The unit vector towards the lamp; the angle is in degrees, 0 in front, positive from the right of the picture."""
    side, rise = np.deg2rad(angle), np.deg2rad(32)
    return vector([np.sin(side) * np.cos(rise), -np.sin(rise), np.cos(side) * np.cos(rise)])


def lit(colour: Array, relief: Array, detail: int, angle: float, gloss: float) -> Array:
    """Light a colour (h, w, 3) on a relief (h, w; units) from an angle: float32 RGB (h, w, 3)."""
    scale = 0.5 * detail
    slope_x = cv2.Sobel(relief, cv2.CV_32F, 1, 0, ksize=3, scale=scale / 4)
    slope_y = cv2.Sobel(relief, cv2.CV_32F, 0, 1, ksize=3, scale=scale / 4)
    lamp = direction(angle)
    normal = 1 / cv2.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    facing = (lamp[2] - slope_x * lamp[0] - slope_y * lamp[1]) * normal
    key = np.clip((facing + 0.3) * np.float32(1 / 1.3), 0, 1)
    fill = np.clip((lamp[2] + slope_x * lamp[0]) * normal, 0, 1)
    # What lies lower than its surroundings sees less of the sky.
    hollow = relief - cv2.blur(relief, (detail // 6 | 1, detail // 6 | 1))
    sky = np.clip(1 + 2.6 * hollow, 0.72, 1.08)
    # Light comes back from the chest and the table.
    bounce = np.clip(-slope_y * normal, 0, 1)
    tone = (0.3 + 0.62 * key + 0.16 * fill + 0.16 * bounce) * sky
    half = lamp + vector([0, 0, 1])
    half /= np.linalg.norm(half)
    shine = np.clip((half[2] - slope_x * half[0] - slope_y * half[1]) * normal, 0, 1)
    shine = shine**2
    shine = shine**2
    shine = shine**2
    shine = shine * shine * shine
    dark = np.clip(1 - tone, 0, 1)
    gleam = gloss * shine
    glow = dark * key * 26
    # Channel by channel: three plain images are quicker to work on than one of triples.
    return cv2.merge(
        [
            plain * (tone * (1 - absorbed * dark)) + (glow * glowing + gleam)
            for plain, absorbed, glowing in zip(cv2.split(colour), ABSORBED, GLOWING, strict=True)
        ]
    )
