"""How an actor is seen: the view of one frame, and where it puts things in the picture."""

from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import Array, Canvas, vector

SHARE = 0.183  # distance between the eyes as a share of the picture's side at scale 1
MIDDLE_Y = 0.26  # what lies in the middle of the picture, units
PIVOT = vector([0.0, 1.05, -0.35])  # the head turns about the top of the neck


@dataclass(frozen=True)
class View:
    """One frame's camera, light and eyes.

    `roll`, `yaw` and `pitch` are degrees (yaw turns the nose to the right of the picture, pitch lowers it), `scale` is
    1 for a head of about three quarters of the picture's height, `shift` moves it by shares of the side, `light` is the
    lamp's angle in degrees (0 in front, positive from the right), `blink` is 0 (open) to 1 (closed), `gaze` is -1..1
    right and down, `noise` the camera's in grey levels, `grain` picks its pattern, `place` the backdrop.
    """

    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    brightness: float = 1.0
    contrast: float = 1.0
    warmth: float = 0.0
    light: float = -25.0
    blink: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    noise: float = 2.0
    grain: int = 0
    place: int = 0


def rotation(view: View) -> Array:
    """The turn of the head, float32 (3, 3); x right, y down, z towards the camera."""
    roll, yaw, pitch = np.deg2rad([view.roll, view.yaw, view.pitch])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return (about_z @ about_x @ about_y).astype(np.float32)


def place(view: View, size: int) -> tuple[float, Array]:
    """Pixels per unit, and the pixel position (2,) of the origin of an unturned head."""
    unit = SHARE * size * view.scale
    origin = size / 2 - 0.5 + vector(view.shift) * size - vector([0, MIDDLE_Y * unit])
    return unit, origin


def project(points: Array, view: View, size: int) -> Array:
    """Points of the head (n, 3) in units as pixel positions (n, 2)."""
    unit, origin = place(view, size)
    turned = (vector(points) - PIVOT) @ rotation(view).T + PIVOT
    return turned[:, :2] * unit + origin


def flat(view: View, canvas: Canvas, size: int, follow: float, z: float) -> Array:
    """The affine matrix (2, 3) that takes a flat layer's pixels to the picture's; `follow` is its share of the turn."""
    part = View(
        roll=view.roll * follow, yaw=view.yaw * follow, pitch=view.pitch * follow, scale=view.scale, shift=view.shift
    )
    height, width = canvas.shape
    corners = vector([[0, 0], [width, 0], [0, height]])
    units = (corners + 0.5) / canvas.detail + vector([canvas.left, canvas.top])
    target = project(np.column_stack([units, np.full(3, z)]), part, size)
    return cv2.getAffineTransform(corners, target.astype(np.float32))


def bent(view: View, canvas: Canvas, depth: Array, size: int, steps: int = 5) -> Array:
    """For every pixel of the picture the pixel of the head's canvas seen there: a float32 map (size, size, 2).

    `depth` is the head's depth on a coarse copy of the canvas: what lies nearer to the camera moves more as the head
    turns. Because the depth is only known where a point came from, its place is found step by step.
    """
    unit, origin = place(view, size)
    turn = rotation(view)
    coarse = size // 4
    at = np.arange(coarse, dtype=np.float32) * 4 + 1.5
    seen_x = ((at - origin[0]) / unit)[None] - PIVOT[0]
    seen_y = ((at - origin[1]) / unit)[:, None] - PIVOT[1]
    back = np.linalg.inv(turn[:2, :2]).astype(np.float32)
    scale = depth.shape[1] / canvas.width
    z = np.zeros((coarse, coarse), np.float32)
    for _ in range(steps):
        rest_x, rest_y = seen_x - turn[0, 2] * (z - PIVOT[2]), seen_y - turn[1, 2] * (z - PIVOT[2])
        x = back[0, 0] * rest_x + back[0, 1] * rest_y + PIVOT[0]
        y = back[1, 0] * rest_x + back[1, 1] * rest_y + PIVOT[1]
        z = cv2.remap(
            depth,
            (x - canvas.left) * scale - 0.5,
            (y - canvas.top) * scale - 0.5,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    pixels = canvas.pixels(np.stack([x, y], -1))
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
