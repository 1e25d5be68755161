"""The demo data set: videos and their list for the pipeline, and still images for the encoder."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ...cache.atomic import sha256_of, write_text
from ...cache.errors import CeflError, shorten_list
from ...cache.ownership import SUMS_FILE, check_disk_space, check_files, format_sum, read_sums, write_owned_text
from ..callbacks import Executor, ProgressCallback, ignore_progress
from .action_units import (
    ACTION_UNITS,
    EXPRESSIONS,
    LABELS,
    combine_units,
    expression_units,
    gaze_units,
    non_prototype_units,
)
from .actor import make_actor
from .canvas import Array
from .demo_config import DemoConfig
from .performance import Performance, sample_camera, sample_gains, sample_performance
from .render import render_frame

VERSION = 3  # raised whenever the same settings would give other images
BYTES_PER_PIXEL, MAX_HEADER_BYTES = 0.05, 1 << 12  # of a rendered video, at most about
SETTINGS_FILE, LIST_FILE = "demo.json", "videos.csv"
COLUMNS = ("path", "label", "subject", "split", "fold", "apex")
FIRST_ENCODER_ACTOR = 10_000  # actors of still images have numbers from here on, those of videos smaller ones
IMAGES_PER_ACTOR = 8


@dataclass(frozen=True)
class VideoSpec:
    """One video to be rendered."""

    path: Path
    subject: int
    label: str
    config: DemoConfig


def make_dataset(
    root: Path,
    config: DemoConfig,
    *,
    executor: Executor = map,
    on_progress: ProgressCallback = ignore_progress,
) -> Path:
    """Render the data set into ``root`` and return the path of its list.

    Writes ``root/videos/S01/S01_anger.mp4`` and so on, and ``root/videos.csv`` (COLUMNS; paths are relative to the list, split
    and fold stay empty, and so does the apex of neutral videos). Finished videos of an earlier call with the same configuration
    stay. ``on_progress`` counts videos.
    Raises CeflError if a worker died, if ``root`` holds files of these names that are not ours, or if its disk has no room.
    """
    settings = json.dumps({"version": VERSION, **config.model_dump(mode="json")}, indent=2) + "\n"
    names = [(subject, label) for subject in range(1, config.subjects + 1) for label in LABELS]
    paths = [root / f"videos/S{subject:02d}/S{subject:02d}_{label}.mp4" for subject, label in names]
    specs = [VideoSpec(path, *name, config) for path, name in zip(paths, names, strict=True)]
    _check_root(root)
    check_disk_space(root, "--root", _required_bytes(root, specs, settings))
    _remove_outdated(root, settings)
    missing = [spec for spec in specs if not spec.path.exists()]
    completed = len(specs) - len(missing)
    on_progress(completed, len(specs))
    for failure in executor(render_video, missing):
        if failure is not None:
            raise CeflError(f"{failure[0].path}: {failure[1]}; run the same command again to continue")
        completed += 1
        on_progress(completed, len(specs))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for spec in specs:
        path = spec.path.relative_to(root).as_posix()
        apex = performance_of(spec).apex
        writer.writerow((path, spec.label, f"S{spec.subject:02d}", "", "", "" if apex is None else apex))
    write_owned_text(root / LIST_FILE, text.getvalue())
    # those of an earlier data set are forgotten
    files = sorted([root / LIST_FILE, *paths])
    lines = [format_sum(sha256_of(file), file.relative_to(root).as_posix()) for file in files]
    write_text(root / SUMS_FILE, "".join(lines))
    return root / LIST_FILE


def performance_of(spec: VideoSpec) -> Performance:
    """Return the performance that a video shows; it depends on subject, label, length and seed."""
    rng = np.random.default_rng([spec.config.seed, spec.subject, LABELS.index(spec.label)])
    shortest, longest = spec.config.num_frames
    return sample_performance(spec.label, rng, int(rng.integers(shortest, longest + 1)))


def render_video(spec: VideoSpec) -> None:
    """Render one video; its file appears when it is complete."""
    performance, actor, size = performance_of(spec), make_actor(spec.subject), spec.config.size
    spec.path.parent.mkdir(parents=True, exist_ok=True)
    part = spec.path.with_name(f".{spec.path.stem}.part.mp4")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), spec.config.fps, (size, size))
    if not writer.isOpened():
        raise CeflError(f"{part}: OpenCV cannot write an mp4 file there; check that the folder is writable")
    try:
        for units, camera in zip(performance.units, performance.cameras, strict=True):
            writer.write(cv2.cvtColor(render_frame(actor, units, camera, size)[0], cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    os.replace(part, spec.path)


def _check_root(root: Path) -> None:
    """Raise CeflError if a file that would be replaced is not ours: demo.json marks a folder, the checksums unedited files."""
    marker, sums = root / SETTINGS_FILE, read_sums(root / SUMS_FILE)
    check_files([root / LIST_FILE], "--root", force=None)
    videos = _rendered_videos(root)
    foreign = [marker, *videos] if not _is_settings_file(marker) else []
    changed = [path for path in videos if sha256_of(path) not in sums.get(path.relative_to(root).as_posix(), {""})]
    foreign += [path for path in changed if path.relative_to(root).as_posix() in sums]
    foreign = [path for path in foreign if path.exists()]
    if foreign:
        names = shorten_list([path.relative_to(root).as_posix() for path in foreign])
        raise CeflError(f"{root}: {names} not written by ceflpipe demo, or edited since; give --root another folder")


def _required_bytes(root: Path, specs: Sequence[VideoSpec], settings: str) -> int:
    """Return about how many bytes the videos that are missing take at most; those of other settings make way for them."""
    config = specs[0].config
    size = round(max(config.num_frames) * config.size**2 * BYTES_PER_PIXEL) + MAX_HEADER_BYTES
    if _has_settings(root, settings):
        return size * sum(not spec.path.exists() for spec in specs)
    return size * len(specs) - sum(video.stat().st_size for video in _rendered_videos(root))


def _has_settings(root: Path, settings: str) -> bool:
    marker = root / SETTINGS_FILE
    return marker.exists() and marker.read_text(encoding="utf-8") == settings


def _is_settings_file(path: Path) -> bool:
    try:
        return {"version", *DemoConfig.model_fields} <= set(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return False


def _rendered_videos(root: Path) -> list[Path]:
    pattern = re.compile(rf"\.?S\d+_({'|'.join(LABELS)})(\.part)?\.mp4")
    return [path for path in sorted(root.glob("videos/S*/*.mp4")) if pattern.fullmatch(path.name)]


def _remove_outdated(root: Path, settings: str) -> None:
    """Remove videos that other settings made, and no other file; afterwards every video belongs to these settings."""
    root.mkdir(parents=True, exist_ok=True)
    if _has_settings(root, settings):
        return
    marker = root / SETTINGS_FILE
    marker.unlink(missing_ok=True)
    for video in _rendered_videos(root):
        video.unlink()
    (root / LIST_FILE).unlink(missing_ok=True)
    write_text(marker, settings)


@dataclass(frozen=True)
class StillImages:
    """Rendered images with their ground truth.

    ``images`` uint8 RGB (n, size, size, 3); ``landmarks`` float32 (n, 5, 2) in pixels, as ``render_frame`` gives them;
    ``intensity`` float32 (n, 6), 0..1, of each expression in the order of EXPRESSIONS; ``units`` float32 (n, 15), 0..1.15, of
    each action unit in the order of ACTION_UNITS.
    """

    images: Array
    landmarks: Array
    intensity: Array
    units: Array


def render_still_images(count: int, seed: int, size: int) -> StillImages:
    """Render ``count`` images of actors numbered FIRST_ENCODER_ACTOR and up; the same arguments give the same bytes."""
    images, landmarks = np.zeros((count, size, size, 3), np.uint8), np.zeros((count, 5, 2), np.float32)
    intensity, targets = (np.zeros((count, len(names)), np.float32) for names in (EXPRESSIONS, ACTION_UNITS))
    # building a head takes as long as rendering several images of it
    for start in range(0, count, IMAGES_PER_ACTOR):
        rng = np.random.default_rng([seed, 77, start // IMAGES_PER_ACTOR])
        actor = make_actor(FIRST_ENCODER_ACTOR + int(rng.integers(0, 1_000_000)))
        light_angle = float(rng.uniform(-50, 50))
        for index in range(start, min(start + IMAGES_PER_ACTOR, count)):
            units, intensity[index] = _sample_expression(rng)
            targets[index] = [units.get(unit, 0.0) for unit in ACTION_UNITS]
            camera = replace(sample_camera(rng), light_angle=light_angle)
            eyes = gaze_units(float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.5, 0.5)))
            eyes[45] = float(rng.uniform(0, 1)) if rng.random() < 0.1 else 0.0
            images[index], landmarks[index] = render_frame(actor, units | eyes, camera, size)
    return StillImages(images, landmarks, intensity, targets)


def _sample_expression(rng: np.random.Generator) -> tuple[dict[int, float], Array]:
    """Draw action units and the intensities (6,) of the expressions in them: none, one, or one with a hint of another."""
    intensity, parts = np.zeros(len(EXPRESSIONS), np.float32), []
    main, second = rng.permutation(len(EXPRESSIONS))[:2]
    if rng.random() < 0.85:
        strength = float(rng.uniform(0.05, 1.0) if rng.random() < 0.5 else rng.uniform(0.55, 1.1))
        intensity[main] = min(1.0, strength)
        parts.append(expression_units(EXPRESSIONS[main], strength, sample_gains(EXPRESSIONS[main], rng)))
        if rng.random() < 0.15:
            intensity[second] = strength * rng.uniform(0.1, 0.4)
            parts.append(expression_units(EXPRESSIONS[second], float(intensity[second])))
    if rng.random() < 0.5:
        chosen = rng.choice(non_prototype_units(EXPRESSIONS[main]), size=int(rng.integers(1, 3)), replace=False)
        parts.append({int(unit): float(rng.uniform(0.1, 0.7)) for unit in chosen})
    return combine_units(*parts), intensity
