"""One image of an actor: head pose, face at given action units, body, background, light and camera noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .action_units import weighted_sum
from .actor import Actor
from .canvas import Array, Canvas, blend, noise, sample, smoothstep, spline, vector
from .face import Head, build_head, dome, shade
from .facial_features import Lips, lip_shape, paint_eyes, paint_lips

NUM_BACKGROUNDS = 60
MIN_SIZE = 160  # smaller images are rendered twice as large and reduced
RESOLUTION = 48  # of heads, pixels per unit, for images of up to 383 pixels
UNIT_FRACTION = 0.183  # one unit as a fraction of the image's side at scale 1
IMAGE_CENTER_Y = 0.26  # the height that is in the middle of the image, in units
PIVOT = vector([0.0, 1.05, -0.35])  # the head turns about the top of the neck
SKIN_GLOSS, CLOTH_GLOSS = 34.0, 8.0  # gray levels of the highlights


@dataclass(frozen=True)
class Camera:
    """Head pose, camera and light of one image."""

    roll: float = 0.0  # degrees
    yaw: float = 0.0  # degrees, positive where the nose turns to the right of the image
    pitch: float = 0.0  # degrees, positive where the nose sinks
    scale: float = 1.0  # 1 for a head of about three quarters of the image's height
    shift: tuple[float, float] = (0.0, 0.0)  # to the right and down, fractions of the side
    brightness: float = 1.0  # factor
    contrast: float = 1.0  # factor
    warmth: float = 0.0  # -1 blue to 1 yellow light
    light_angle: float = -25.0  # degrees, 0 in front, positive from the right
    noise_std: float = 2.0  # gray levels
    noise_index: int = 0  # the pattern of the noise
    background: int = 0  # below NUM_BACKGROUNDS

    def rotation(self) -> Array:
        """Return the turn of the head, float64 (3, 3); x right, y down, z towards the camera."""
        (a, b, c), (d, e, f) = (g(np.deg2rad([self.roll, self.yaw, self.pitch])) for g in (np.sin, np.cos))
        rotate_z, rotate_y = np.array([[d, -a, 0], [a, d, 0], [0, 0, 1]]), np.array([[e, 0, b], [0, 1, 0], [-b, 0, e]])
        return rotate_z @ np.array([[1, 0, 0], [0, f, c], [0, -c, f]]) @ rotate_y

    def frame(self, size: int) -> tuple[float, Array]:
        """Return pixels per unit, and the pixel position (2,) of an unturned head's origin in an image of ``size``."""
        unit = UNIT_FRACTION * size * self.scale
        return unit, size / 2 - 0.5 + vector(self.shift) * size - vector([0, IMAGE_CENTER_Y * unit])

    def project(self, points: object, size: int) -> Array:
        """Return the pixel positions (n, 2) of points (n, 3) of the head."""
        (unit, origin), turned = self.frame(size), (np.asarray(points) - PIVOT) @ self.rotation().T + PIVOT
        return vector(turned[:, :2] * unit + origin)


def render_frame(actor: Actor, units: Mapping[int, float], camera: Camera, size: int = 256) -> tuple[Array, Array]:
    """Render one image and its true landmarks.

    ``units`` maps action units (ACTION_UNITS, EYE_UNITS) to intensities. Returns the image, uint8 RGB (size, size, 3), and
    the landmarks, float32 (5, 2) in pixels: the eye centers (the left one in the image first), the tip of the nose, the
    corners of the mouth (left one first). The same arguments give the same bytes.
    """
    if size < MIN_SIZE:
        image, points = render_frame(actor, units, camera, 2 * size)
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), (points - 0.5) / 2
    resolution = RESOLUTION * max(1, round(size / 256))
    head = build_head(actor, resolution)
    points = _landmarks(head, lip_shape(actor, units), camera, size)
    image = cv2.resize(_background(camera.background), (size, size), interpolation=cv2.INTER_LINEAR)
    _paint_body(image, actor, resolution, camera)
    _paint_head(image, head, units, camera, points)
    return _expose(image, camera), points


def _landmarks(head: Head, lips: Lips, camera: Camera, size: int) -> Array:
    # RetinaFace sets the nose's point a little above the tip and the mouth's just inside the corners
    eye, wide = head.actor.eye_distance / 2, 0.95 * lips.half_width
    x = vector([-eye, eye, 0.0, -wide, wide])
    y = vector([-0.02, -0.02, head.actor.nose_length - 0.06, lips.corner_y - 0.035, lips.corner_y - 0.035])
    z = sample(head.depth, head.motion.canvas.to_pixels(x[None], y[None]))[0]
    return camera.project(np.stack([x, y, z], -1), size)


def _head_window(head: Head, camera: Camera, size: int) -> tuple[slice, slice]:
    """Return the rows and columns of the image that the head may cover, multiples of 4."""
    left, top, right = head.canvas.left, head.canvas.top, head.canvas.left + head.canvas.width
    corners = [(x, y, z) for x in (left, right) for y in (top, top + head.canvas.height) for z in (0, 1)]
    at = camera.project(corners, size)
    low, high = (np.clip(edge, 0, -(-size // 4)).astype(int) * 4 for edge in (at.min(0) // 4, at.max(0) // 4 + 1))
    return slice(low[1], high[1]), slice(low[0], high[0])


def _head_coordinates(head: Head, camera: Camera, size: int, window: tuple[slice, slice]) -> tuple[Array, Array]:
    """Return the head coordinates before rotation (x and y in units, float32 (h, w)) that every fourth pixel of a window shows.

    The depth is given in these coordinates, so they are found by fixed-point iteration.
    """
    (unit, origin), turn = camera.frame(size), camera.rotation()
    back = vector(np.linalg.inv(turn[:2, :2]))
    turn_x, turn_y = turn[:2, 2].tolist()
    rows, columns = (np.arange(part.start, part.stop, 4, dtype=np.float32) + 1.5 for part in window)
    image_x, image_y = ((columns - origin[0]) / unit - PIVOT[0])[None], ((rows - origin[1]) / unit - PIVOT[1])[:, None]
    x, y = np.broadcast_arrays(image_x + PIVOT[0], image_y + PIVOT[1])
    for _ in range(5):
        z = sample(head.depth, head.motion.canvas.to_pixels(x, y), cv2.BORDER_REPLICATE) - PIVOT[2]
        flat_x, flat_y = image_x - turn_x * z, image_y - turn_y * z
        x = back[0, 0] * flat_x + back[0, 1] * flat_y + PIVOT[0]
        y = back[1, 0] * flat_x + back[1, 1] * flat_y + PIVOT[1]
    return x, y


def _paint_head(image: Array, head: Head, units: Mapping[int, float], camera: Camera, points: Array) -> None:
    """Paint the head into the image (uint8), in place; ``points`` are its landmarks.

    Every pixel is traced back: through the pose to the unturned head, through the action units to the face at rest.
    """
    size, actor, motion = image.shape[0], head.actor, head.motion
    window, unit = _head_window(head, camera, size), camera.frame(size)[0]
    if (target := image[window]).size == 0:
        return
    x, y = _head_coordinates(head, camera, size, window)
    weights, lips = motion.weights(units), lip_shape(actor, units)
    rest, bulge = motion.inverse_warp(weights, lips.jaw, x, y)
    # all of these are smooth, so that a quarter of the resolution is enough
    coarse = np.dstack([*head.canvas.to_pixels(rest[..., 0], rest[..., 1]), x, y, bulge])
    fine = cv2.resize(coarse, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    *rest, x, y, bulge = cv2.split(fine[: target.shape[0], : target.shape[1]])
    color = sample(head.color, (rest[0], rest[1]))
    opacity = color[..., 3] * np.float32(1 / 255)
    color = cv2.cvtColor(color, cv2.COLOR_RGBA2RGB).astype(np.float32)
    relief = sample(head.relief, (rest[0], rest[1])) + bulge
    wrinkle = np.minimum(sample(weighted_sum(weights, motion.wrinkles), head.canvas.to_pixels(x, y)), 1.3)
    relief -= 0.022 * wrinkle
    points = points - vector([window[1].start, window[0].start])
    low = lips.lower_y + lips.lower_thickness + 0.28 - lips.corner_y
    high = min(lips.upper_y - lips.upper_thickness - lips.corner_y, 0) - 0.16
    middle = points[3:].mean(0) + vector([0, unit * (0.5 * (low + high) + 0.035)])
    where = _patch(middle, unit * (lips.half_width + 0.2), unit * 0.5 * (low - high), target.shape)
    mouth, opening = paint_lips(actor, lips, color[where], relief[where], x[where], y[where], 1 / unit)
    angle = camera.light_angle - camera.yaw
    lit = shade(color, relief, unit, angle, SKIN_GLOSS, wrinkle)
    blend(lit[where], mouth, opening)
    eyes = [_patch(point - vector([0, 0.04 * unit]), 0.42 * unit, 0.34 * unit, target.shape) for point in points[:2]]
    patches, eye_x, eye_y = (np.stack([field[eye] for eye in eyes]) for field in (lit, x, y))
    paint_eyes(actor, patches, eye_x, eye_y, 1 / unit, units, angle)
    lit[eyes[0]], lit[eyes[1]] = patches
    target[:] = cv2.blendLinear(cv2.convertScaleAbs(lit), np.ascontiguousarray(target), opacity, 1 - opacity)


def _patch(center: Array, half_width: float, half_height: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a rectangle, all in pixels, moved into an image of ``shape``."""
    slices = []
    for middle, half, length in ((center[1], half_height, shape[0]), (center[0], half_width, shape[1])):
        span = min(2 * int(np.ceil(half)), length)
        start = min(max(0, round(float(middle)) - span // 2), length - span)
        slices.append(slice(start, start + span))
    return slices[0], slices[1]


def _paint_body(image: Array, actor: Actor, resolution: int, camera: Camera) -> None:
    """Paint shoulders, neck and the hair behind it into the image (uint8), in place; they stay when the head turns."""
    size, canvas = image.shape[0], Canvas(-3.6, 0.5, 7.2, 4.4, resolution * 3 // 4)
    unit, origin = camera.frame(size)
    scale, left, above = unit / canvas.resolution, origin[0] + canvas.left * unit, origin[1] + canvas.top * unit
    top = min(max(0, int(above)), size - 1)
    matrix = vector([[scale, 0, left + scale / 2], [0, scale, above - top + scale / 2]])
    layer = cv2.warpAffine(_lit_body(actor, canvas, round(camera.light_angle / 6)), matrix, (size, size - top))
    rest = 255 - layer[..., 3]
    behind = cv2.multiply(np.ascontiguousarray(image[top:]), cv2.merge([rest, rest, rest]), scale=1 / 255)
    image[top:] = cv2.add(behind, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB))


@lru_cache(maxsize=6)
def _lit_body(actor: Actor, canvas: Canvas, light_step: int) -> Array:
    """Return the body's layer, uint8 RGBA (h, w, 4), premultiplied; the light comes in steps of 6 degrees."""
    neck, x, y = 0.72, canvas.x, canvas.y
    shoulders = [(1.12 * neck, 2.2), (1.4, 2.46), (2.1, 2.7), (2.5, 3.05), (2.7, 3.6), (2.8, 5.0)]
    right = spline([(neck * 0.98, 0.9), (neck * 0.95, 1.5), (neck * 0.98, 1.95), *shoulders], 60)
    silhouette = canvas.fill(np.concatenate([right, (right * vector([-1, 1]))[::-1]]))
    relief = 0.62 * dome(silhouette, canvas.resolution, 0.6) + 0.12 * canvas.blob(0, 3.2, 1.4, 0.6)
    color = np.empty((*canvas.shape, 3), np.float32)
    color[:] = actor.skin_color
    blend(color, actor.skin_color * vector([0.5, 0.4, 0.38]), 0.85 * canvas.blob(0, actor.chin_y - 0.25, 0.75, 0.36))
    neckline = 2.1 + 0.32 * np.sqrt(np.maximum(1 - (x / (neck * 1.3)) ** 2, 0)) - y
    color *= (1 - 0.3 * np.exp(-np.maximum(neckline, 0) / 0.07))[..., None]
    cloth = 1 - smoothstep(neckline, -0.03, 0.0)
    collar = 1 - 0.14 * np.exp(-0.5 * ((neckline + 0.07) / 0.035) ** 2) * (np.abs(x) < neck * 1.4)
    color += (collar[..., None] * actor.cloth_color - color) * cloth[..., None]
    cloth_folds = noise(np.random.default_rng([52, actor.number]), canvas.shape, 0.4 * canvas.resolution)
    relief = cv2.GaussianBlur((relief + cloth * (0.035 + 0.01 * cloth_folds)).astype(np.float32), (0, 0), 2.0)
    lit = shade(color, relief, canvas.resolution, light_step * 6.0, CLOTH_GLOSS)
    wide = 1.16 * actor.face_width
    hair = (1 - smoothstep(np.abs(x), wide - 0.1, wide)) * (1 - smoothstep(y, actor.hair_end_y - 0.2, actor.hair_end_y))
    blend(lit, 0.4 * actor.hair_color, 1 - silhouette)
    opacity = np.maximum(silhouette, hair)
    return cv2.merge([cv2.convertScaleAbs(lit * opacity[..., None]), cv2.convertScaleAbs(opacity, alpha=255)])


@lru_cache(maxsize=NUM_BACKGROUNDS)
def _background(number: int) -> Array:
    """Return a wall with discs of related colors, out of focus: uint8 RGB (80, 80, 3)."""
    rng, side = np.random.default_rng([53, number]), 80
    y, x = np.mgrid[0:side, 0:side] / side
    wall, lamp = rng.uniform(60, 205) + rng.uniform(-18, 18, 3), rng.uniform(0.2, 0.8)
    glow = np.exp(-((x - lamp) ** 2 + (y - 0.4) ** 2) / 0.25)
    image = (wall * (0.65 + 0.4 * glow)[..., None]).astype(np.float32)
    for _ in range(int(rng.integers(2, 14))):
        color = np.clip(wall * rng.uniform(0.6, 1.25) + rng.uniform(-24, 24, 3), 20, 245).tolist()
        cv2.circle(image, rng.integers(0, side, 2).tolist(), int(rng.integers(3, 16)), color, -1, cv2.LINE_AA)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 3.0), 0, 255).astype(np.uint8)


def _expose(image: Array, camera: Camera) -> Array:
    """Return the image with the camera's exposure, color of light and noise."""
    warm = vector([1 + 0.06 * camera.warmth, 1.0, 1 - 0.08 * camera.warmth])
    levels = np.arange(256, dtype=np.float32)[:, None] * (camera.brightness * camera.contrast) * warm
    table = np.clip(levels + 118 * (1 - camera.contrast), 0, 255).astype(np.uint8)
    image, size = cv2.LUT(image, table.reshape(256, 1, 3)), image.shape[0]
    down, right = (camera.noise_index * 37) % 61, (camera.noise_index * 53) % 67
    pattern = _noise_pattern(size)[down : down + size, right : right + size]
    return cv2.addWeighted(image, 1.0, pattern, camera.noise_std / 16, -8 * camera.noise_std)


@lru_cache(maxsize=2)
def _noise_pattern(size: int) -> Array:
    """Return noise of mean 128 and standard deviation 16, uint8 (size + 80, size + 80, 3)."""
    rng, side = np.random.default_rng(55), size + 80
    both = rng.normal(0, 11.3, (side, side, 3)) + rng.normal(0, 11.3, (side, side, 1))
    return np.clip(both + 128, 0, 255).astype(np.uint8)
