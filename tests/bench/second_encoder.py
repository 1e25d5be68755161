"""Speed of a second encoder: python tests/bench/second_encoder.py [--frames 60] [--rounds 5] [--encoders A,B,C --dataset NAME]

Three ways to the features of an encoder, in one process and one thread, on the same videos, in turn: stage one in full; stage one with
the faces that another encoder's feature cache has; and its parts apart: reading all frames, aligning all faces, encoding
all crops. Goals: with known faces at most 1.15 times the parts, and at least 1.5 times as fast as in full with ResNet-18 at 112
pixels. Features are compared, too: all three are the same.

With --encoders only these, one after the other over all videos of a data set, each with the faces that the first has found: the
processor time of each, of all of them, and its ratio to the first alone.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from bench_videos import SIZES, write_videos

from ceflpipe.cache.features import FrameStatus
from ceflpipe.cache.fingerprint import detection_fingerprint
from ceflpipe.cache.hdf5 import read_video
from ceflpipe.pipeline.dataset import DatasetOptions
from ceflpipe.pipeline.paths import PRETRAINED_DIR, encoder_file
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_config
from ceflpipe.stages.extract.extractor import extract_videos
from ceflpipe.stages.extract.face_crops import crop_face
from ceflpipe.stages.extract.face_tracks import VideoJob
from ceflpipe.stages.extract.tracking import Face
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

GOALS = {"known faces / parts": (1.15, "at most"), "full / known faces": (1.5, "at least")}
Features = dict[str, np.ndarray]
"""Features (T, D) by video."""


@dataclass
class Clock:
    """Milliseconds per frame by name, a value per round: on the clock, and of the processor time of this process."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, name: str, frames: int, work: Callable[[], Features | None]) -> Features | None:
        started, processor = time.perf_counter(), time.process_time()
        result = work()
        used, elapsed = time.process_time() - processor, time.perf_counter() - started
        self.wall.setdefault(name, []).append(1e3 * elapsed / frames)
        self.processor.setdefault(name, []).append(1e3 * used / frames)
        return result


class Comparison:
    """The three ways for the videos of one size; ``known``: a feature cache of another encoder with their faces."""

    def __init__(self, paths: list[Path], config: ExtractConfig, known: Path) -> None:
        resolved = resolve_config(config)
        self.settings, self.clock = resolved.settings, Clock()
        self.detector, self.encoder = build_detector(resolved.config), build_encoder(resolved.config)
        self.paths = paths
        self.tracks = {path.stem: read_video(known, path.stem) for path in paths}
        self.frames = sum(len(track.time) for track in self.tracks.values())
        self.jobs = [VideoJob(path.stem, path) for path in paths]
        self.known_jobs = [
            VideoJob(
                path.stem, path, detections=known,
                detection=detection_fingerprint(self.settings, self.tracks[path.stem].source_sha256),
            )
            for path in paths
        ]  # fmt: skip

    def extract(self, jobs: list[VideoJob]) -> Features:
        return {video.id: video.features for video in extract_videos(jobs, self.detector, self.encoder, self.settings)}

    def parts(self) -> Features:
        """Read, align and encode one after the other, each for all frames; their times are measured one by one."""
        images: dict[str, list[np.ndarray]] = {}
        crops: dict[str, np.ndarray] = {}
        features: Features = {}

        def read() -> None:
            for path in self.paths:
                images[path.stem] = [frame.image for frame in open_video(path).frames()]

        def align() -> None:
            for name, frames in images.items():
                faces = faces_of(name)
                crops[name] = np.stack([
                    crop_face(image, face, self.settings.align, self.settings.crop_size)
                    for image, face in zip(frames, faces, strict=True)
                ])  # fmt: skip

        def faces_of(name: str) -> list[Face | None]:
            track = self.tracks[name]
            return [
                None
                if np.isnan(track.box[i]).any()
                else Face(track.box[i], track.landmarks[i], 1.0, FrameStatus.DETECTED)
                for i in range(len(track.time))
            ]

        def encode() -> None:
            joined = self.encoder(np.concatenate(list(crops.values())))
            ends = np.cumsum([len(part) for part in crops.values()])[:-1]
            features.update(zip(crops, np.split(joined, ends), strict=True))

        for name, step in {"reading": read, "aligning": align, "encoding": encode}.items():
            self.clock.measure(name, self.frames, step)
        for times in (self.clock.wall, self.clock.processor):
            total = sum(times[name][-1] for name in ("reading", "aligning", "encoding"))
            times.setdefault("parts", []).append(total)
        return features

    def round(self, number: int) -> None:
        """Measure each way once, in an order that changes from round to round."""
        ways: list[tuple[str, Callable[[], Features]]] = [
            ("full", lambda: self.clock.measure("full", self.frames, lambda: self.extract(self.jobs)) or {}),
            (
                "known faces",
                lambda: self.clock.measure("known faces", self.frames, lambda: self.extract(self.known_jobs)) or {},
            ),
            ("parts", self.parts),
        ]
        features = {name: way() for name, way in (ways if number % 2 else ways[::-1])}
        for name, values in features.items():
            equal = all(np.array_equal(values[video], features["full"][video]) for video in self.tracks)
            if not equal:
                raise SystemExit(f"{name}: not the features of a full extraction")


def print_results(label: str, comparison: Comparison) -> None:
    clock = comparison.clock
    for kind, times in (("processor time", clock.processor), ("time on the clock", clock.wall)):
        medians = ", ".join(
            f"{name} {statistics.median(values):.2f} (lowest {min(values):.2f})" for name, values in times.items()
        )
        print(f"{label}, {kind} in ms/frame: {medians}")
        for ratio, (goal, word) in GOALS.items():
            above, below = (np.array(times[name]) for name in ratio.split(" / "))
            rounds = above / below
            print(
                f"  {ratio}: median of the rounds {np.median(rounds):.3f} ({rounds.min():.3f} to {rounds.max():.3f}), of the "
                f"lowest {above.min() / below.min():.3f}; goal: {word} {goal}",
                flush=True,
            )


def print_encoders(dataset: str, encoders: list[str]) -> None:
    """Extract a data set with each encoder in this process, the first one in full, and print the processor time."""
    source = DatasetOptions(dataset=dataset).resolve()
    manifest, times = source.manifest(), []
    with tempfile.TemporaryDirectory() as name:
        caches = [Path(name) / f"{number}.h5" for number in range(len(encoders))]
        for encoder, cache in zip(encoders, caches, strict=True):
            plans = []
            config = ExtractConfig(encoder=encoder_file(encoder))
            processor = time.process_time()
            result = extract_features(
                manifest, config, cache, detections=caches[:1], on_plan=lambda plan, _, to=plans: to.append(plan)
            )
            times.append(time.process_time() - processor)
            known = sum(plans[0].known_tracks.values())
            print(
                f"{encoder}: {times[-1]:.1f} s of processor time, {result.num_frames} frames, "
                f"{1e3 * times[-1] / result.num_frames:.2f} ms/frame, of which the encoder {result.encode_ms:.2f}; faces known of "
                f"{known} of {len(manifest.entries)} videos",
                flush=True,
            )
    print(f"all encoders: {sum(times):.1f} s, {sum(times) / times[0]:.2f} times the first alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="per video")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crop-size", type=int, default=112)
    parser.add_argument("--encoder", type=Path, default=PRETRAINED_DIR / "faces.safetensors")
    parser.add_argument("--encoders", type=lambda text: text.split(","), help="only these, over --dataset")
    parser.add_argument("--dataset", default="demo")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in a worker
    if arguments.encoders:
        print_encoders(arguments.dataset, arguments.encoders)
        return
    first = ExtractConfig(encoder=arguments.encoder)
    second = ExtractConfig(encoder=arguments.encoder, crop_size=arguments.crop_size)
    print(
        f"{datetime.date.today()}, torch {torch.__version__}, {arguments.encoder.name} at {arguments.crop_size} px, "
        f"{resolve_config(second).settings.precision}, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as name:
        for label, size in SIZES.items():
            folder = Path(name) / label
            paths = write_videos(folder, size, arguments.frames)
            entries = tuple(VideoEntry(path.stem, path.name, "fear") for path in paths)
            known = folder / "known.h5"
            extract_features(Manifest("bench", folder, entries, ("fear",)), first, known)
            comparison = Comparison(paths, second, known)
            for number in range(-1, arguments.rounds):
                if number == 0:  # the round before was to warm up
                    comparison.clock = Clock()
                comparison.round(number)
            print_results(label, comparison)


if __name__ == "__main__":
    main()
