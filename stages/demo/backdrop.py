"""What stands behind an actor: blurred rooms, windows, lights and greenery."""

from functools import lru_cache

import cv2
import numpy as np

from .canvas import Array, vector

SIDE = 160
KINDS = ("studio", "room", "lights", "garden", "window", "shelf")


@lru_cache(maxsize=16)
def backdrop(place: int) -> Array:
    """The place with this number, out of focus: uint8 RGB (160, 160, 3)."""
    rng = np.random.default_rng([53, place])
    kind = KINDS[place % len(KINDS)]
    tones = vector(
        [(176, 190, 198), (204, 190, 170), (150, 168, 152), (186, 172, 190), (120, 134, 152), (214, 206, 194)]
    )
    wall = tones[int(rng.integers(0, len(tones)))] * rng.uniform(0.7, 1.05)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    centre = rng.uniform(0.25, 0.75)
    glow = np.exp(-((x - centre) ** 2 + (y - 0.4) ** 2) / 0.22)
    picture = wall * (0.62 + 0.42 * glow)[..., None]
    painters = {"room": _room, "lights": _lights, "garden": _garden, "window": _window, "shelf": _shelf}
    if kind in painters:
        picture = painters[kind](picture, rng)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 3.2), 0, 255).astype(np.uint8)


def _rectangle(picture: Array, left: float, top: float, right: float, bottom: float, colour: Array) -> None:
    corners = [int(SIDE * v) for v in (left, top, right, bottom)]
    cv2.rectangle(picture, (corners[0], corners[1]), (corners[2], corners[3]), tuple(float(v) for v in colour), -1)


def _room(picture: Array, rng: np.random.Generator) -> Array:
    left = rng.choice([0.04, 0.66])
    _rectangle(picture, left, 0.12, left + 0.3, 0.52, vector([90, 74, 60]))
    _rectangle(picture, left + 0.02, 0.14, left + 0.28, 0.5, 130 + 0.35 * rng.uniform(0, 225, 3))
    _rectangle(picture, left + 0.06, 0.24, left + 0.2, 0.42, 80 + 0.45 * rng.uniform(0, 220, 3))
    _rectangle(picture, 0, 0.8, 1, 1, vector([112, 86, 66]))
    lamp = (int(SIDE * (0.9 - left)), int(SIDE * 0.34))
    glow = np.zeros((SIDE, SIDE), np.float32)
    cv2.circle(glow, lamp, 12, 1.0, -1)
    glow = 0.9 * cv2.GaussianBlur(glow, (0, 0), 4) + 2.2 * cv2.GaussianBlur(glow, (0, 0), 24)
    return picture + glow[..., None] * vector([120, 96, 56])


def _lights(picture: Array, rng: np.random.Generator) -> Array:
    picture = picture * 0.32 + vector([10, 12, 24])
    for _ in range(34):
        spot = np.zeros_like(picture)
        at = (int(rng.uniform(0, SIDE)), int(rng.uniform(0, SIDE)))
        warm = vector([(250, 190, 110), (240, 140, 90), (150, 190, 240), (250, 230, 190)])[int(rng.integers(0, 4))]
        cv2.circle(
            spot, at, int(rng.uniform(4, 12)), tuple(float(v) for v in warm * rng.uniform(0.2, 0.65)), -1, cv2.LINE_AA
        )
        picture = picture + spot
    return picture


def _garden(picture: Array, rng: np.random.Generator) -> Array:
    sky = np.linspace(1, 0, SIDE, dtype=np.float32)[:, None, None]
    picture = vector([92, 122, 70]) * (1 - sky) + vector([196, 216, 226]) * sky + 0 * picture
    for _ in range(150):
        at = (int(rng.uniform(0, SIDE)), int(SIDE * (rng.uniform(0.1, 1.0) ** 0.8)))
        green = vector([86, 112, 72]) * rng.uniform(0.55, 1.35) + rng.uniform(-14, 22, 3)
        cv2.circle(picture, at, int(rng.uniform(4, 14)), tuple(float(v) for v in green), -1, cv2.LINE_AA)
    return picture


def _window(picture: Array, rng: np.random.Generator) -> Array:
    left = rng.uniform(-0.1, 0.5)
    _rectangle(picture, left, 0.0, left + 0.55, 0.7, vector([238, 240, 238]))
    _rectangle(picture, left + 0.03, 0.03, left + 0.52, 0.66, vector([206, 224, 236]))
    _rectangle(picture, left + 0.03, 0.42, left + 0.52, 0.66, vector([150, 178, 146]))
    for bar in (0.26,):
        _rectangle(picture, left + bar, 0.0, left + bar + 0.03, 0.68, vector([238, 238, 234]))
    curtain = 110 + 0.4 * rng.uniform(0, 220, 3)
    _rectangle(picture, left + 0.55, 0.0, left + 0.72, 1.0, curtain)
    return picture


def _shelf(picture: Array, rng: np.random.Generator) -> Array:
    picture = picture * 0.6
    for row in (0.0, 0.27, 0.54, 0.81):
        at = 0.0
        while at < 1:
            wide = rng.uniform(0.025, 0.06)
            book = vector(
                [(150, 60, 50), (60, 90, 120), (200, 170, 110), (80, 110, 80), (110, 80, 110), (210, 200, 185)]
            )
            if rng.random() < 0.85:
                colour = book[int(rng.integers(0, 6))] * rng.uniform(0.6, 1.0)
                _rectangle(picture, at, row + 0.27 - rng.uniform(0.15, 0.22), at + wide, row + 0.25, colour)
            at += wide
        _rectangle(picture, 0, row + 0.25, 1, row + 0.275, vector([126, 94, 66]))
    return picture
