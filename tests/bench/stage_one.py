"""Speed of stage one: python tests/bench/stage_one.py [--growth] [--decode] [--reader] [--frames 60] [--encoder FILE]

Compares ceflpipe, on the same videos and in one session, with the loop a researcher would write: retinaface.detect_faces on
the whole frame, insightface's norm_crop, and torchvision's resnet18 in fp32, one crop at a time; frame by frame, and step by
step. Then the whole command with its start-up, and with --growth 40 videos against 400. With --decode only the time of
decoding, by PyAV as ceflpipe does and by OpenCV; with --reader only the time of all of stage one, with videos read by one and by
the other.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np
import torch
from bench_videos import SIZES, write_videos
from insightface.utils.face_align import norm_crop
from memory import PeakMemory
from retinaface import detect_faces
from up_to_date import time_up_to_date_check

from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline.executor import num_cores, process_executor
from ceflpipe.stages.device import resolve_precision
from ceflpipe.stages.encoder.weights import NORMALIZATIONS, load_encoder, read_encoder_metadata
from ceflpipe.stages.extract import face_tracks
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import (
    BACKENDS,
    ExtractConfig,
    build_detector,
    build_encoder,
    resolve_config,
)
from ceflpipe.stages.extract.extractor import extract_videos
from ceflpipe.stages.extract.face_tracks import VideoJob
from ceflpipe.stages.extract.video_reader import Frame, VideoReader, open_video
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

GMAC = 1.82
"""Of ResNet-18 on a 224 x 224 image (torchvision's documentation)."""
Features = dict[str, np.ndarray]
"""Features (T, 512) by video."""


class ReferenceLoop:
    """The loop a researcher would write, with each library as it is and its own threads."""

    def __init__(self, encoder: Path) -> None:
        self.network = load_encoder(encoder)
        mean, std = NORMALIZATIONS[read_encoder_metadata(encoder).normalization]
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def detect(self, image: np.ndarray) -> np.ndarray | None:
        faces = detect_faces(image, score_threshold=0.5)
        if not faces:
            return None
        largest = max(faces, key=lambda face: face.width * face.height)
        return np.array([(p.x, p.y) for p in largest.landmarks], np.float32)

    def align(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return norm_crop(image, landmarks, image_size=224)

    def encode(self, crop: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            return self.network(((pixels - self.mean) / self.std)[None])[0].numpy()

    def step_by_step(self, paths: list[Path]) -> tuple[dict[str, float], Features]:
        """Return the milliseconds per frame of each step, run over all frames before the next one, and the features."""
        times, features = {}, {}
        started = time.perf_counter()
        frames = {path.stem: [frame.image for frame in open_video(path).frames()] for path in paths}
        count = sum(map(len, frames.values()))
        times["decode"] = milliseconds(started, count)
        started = time.perf_counter()
        landmarks = {name: [self.detect(image) for image in images] for name, images in frames.items()}
        times["detect"] = milliseconds(started, count)
        started = time.perf_counter()
        crops = {
            name: [
                self.align(image, x) if x is not None else None
                for image, x in zip(images, landmarks[name], strict=True)
            ]
            for name, images in frames.items()
        }
        times["align"] = milliseconds(started, count)
        started = time.perf_counter()
        for name, images in crops.items():
            features[name] = np.stack([self.encode(x) if x is not None else np.full(512, np.nan) for x in images])
        times["encode"] = milliseconds(started, count)
        return times, features

    def frame_by_frame(self, paths: list[Path], max_frames: int) -> float:
        """Return the milliseconds per frame when all steps run on a frame before the next one."""
        started, count = time.perf_counter(), 0
        for path in paths:
            for image, _ in open_video(path).frames():
                if (landmarks := self.detect(image)) is not None:
                    self.encode(self.align(image, landmarks))
                count += 1
                if count == max_frames:
                    return milliseconds(started, count)
        return milliseconds(started, count)


class Speeds(NamedTuple):
    """Milliseconds per frame: the loop step by step, ceflpipe, and its whole command."""

    loop: float
    extract: float
    command: float


def milliseconds(started: float, count: int) -> float:
    return 1e3 * (time.perf_counter() - started) / count


def time_extract(paths: list[Path], config: ExtractConfig, folder: Path, workers: int) -> tuple[float, float, Features]:
    """Return milliseconds per frame and peak memory (MB) of workers that are already running, and the features."""
    entries = tuple(VideoEntry(path.stem, path.name, "fear") for path in paths)
    manifest = Manifest("bench", paths[0].parent, entries, ("fear",))
    warm_up = Manifest("warm-up", paths[0].parent, entries[: 2 * workers], ("fear",))
    executor = process_executor(workers)
    extract_features(warm_up, config, folder / "warm-up.h5", executor=executor, workers=len(warm_up.entries))
    (folder / "warm-up.h5").unlink()
    cache = folder / "bench.h5"
    cache.unlink(missing_ok=True)
    with PeakMemory() as memory:
        result = extract_features(manifest, config, cache, executor=executor, workers=workers)
    table = read_features(cache)
    features = {path.stem: table[path.stem].astype(np.float32) for path in paths}
    return 1e3 * result.seconds / result.num_frames, memory.peak, features


def time_command(paths: list[Path], config: ExtractConfig, folder: Path) -> float:
    """Return the seconds of `ceflpipe extract` as a user runs it, from its start to its end."""
    cache, listing = folder / "command.h5", folder / "command.csv"
    cache.unlink(missing_ok=True)
    listing.write_text("id,path,label\n" + "".join(f"{path.stem},{path.name},fear\n" for path in paths))
    options = {
        "--manifest": listing, "--root": paths[0].parent, "--encoder": config.encoder, "--backend": config.backend,
        "--precision": config.precision, "--out": cache,
    }  # fmt: skip
    command = [sys.executable, "-m", "ceflpipe.pipeline", "extract", "--quiet"]
    started = time.perf_counter()
    subprocess.run(
        [*command, *(str(part) for option in options.items() for part in option)], check=True, capture_output=True
    )
    return time.perf_counter() - started


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def matmul_speed(precision: str, side: int = 2048, repeats: int = 20) -> float:
    """Return the measured GMAC/s of a square matrix product."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.rand(side, side).to(dtype), torch.rand(side, side).to(dtype)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return side**3 / statistics.median(times) / 1e9


def print_encoder_speed(config: ExtractConfig, loop: ReferenceLoop) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (32, 28, 28, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    encoder = build_encoder(config)
    features, times = encoder(crops), []
    for _ in range(12):
        started = time.perf_counter()
        encoder(crops)
        times.append(milliseconds(started, len(crops)))
    matmul_time = 1e3 * GMAC / matmul_speed(config.precision)
    reference = np.stack([loop.encode(crop) for crop in crops])
    similarity = cosine(features.astype(np.float32), reference).mean()
    print(
        f"  encoder, {config.precision} by {config.backend}: {np.median(times):.1f} ms/frame, "
        f"{np.median(times) / matmul_time:.2f} times the {matmul_time:.1f} ms of {GMAC} GMAC in a matrix product; "
        f"cosine to fp32 on equal crops {similarity:.5f}"
    )


def time_opencv(path: Path) -> float:
    """Return the milliseconds per frame of OpenCV, with its own threads, to RGB."""
    started, count = time.perf_counter(), 0
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    while True:
        is_decoded, image = capture.read()
        if not is_decoded:
            return milliseconds(started, count)
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        count += 1


def time_pyav(path: Path) -> float:
    started = time.perf_counter()
    return milliseconds(started, sum(1 for _ in open_video(path).frames()))


def print_decode_times(label: str, paths: list[Path]) -> None:
    """Print the median of five rounds over all videos; the ways take turns."""
    ways = {"OpenCV": time_opencv, "PyAV": time_pyav}
    rounds = [{name: statistics.mean(map(way, paths)) for name, way in ways.items()} for _ in range(5)]
    times = {name: statistics.median(each[name] for each in rounds) for name in ways}
    parts = [f"{name} {ms:.2f} ({ms / times['OpenCV']:.2f} times)" for name, ms in times.items()]
    print(f"{label}, decoding in ms/frame: {', '.join(parts)}", flush=True)


class OpenCVReader(VideoReader):
    """The least that reads a video with OpenCV: frames to RGB, with its own threads, at the times it gives."""

    def frames(self) -> Iterator[Frame]:
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        while True:
            is_decoded, image = capture.read()
            if not is_decoded:
                return
            time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), time)


def open_with_opencv(path: Path, rotation: str = "", region: str = "", fps: float = 0.0) -> VideoReader:
    """Open a video in the place of ``open_video``; without rotation and region."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    return OpenCVReader(path, capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))


class ReaderTime(NamedTuple):
    """Milliseconds per frame of all of stage one in one process: on the clock, and of its processor time."""

    wall: float
    processor: float


def time_reader(paths: list[Path], config: ExtractConfig, opener: object) -> tuple[ReaderTime, Features]:
    """Run stage one, writing aside, with videos opened by ``opener``; return its time and the features."""
    resolved = resolve_config(config)
    detector, encoder = build_detector(resolved.config), build_encoder(resolved.config)
    jobs = [VideoJob(path.stem, path) for path in paths]
    with mock.patch.object(face_tracks, "open_video", opener):
        started, processor = time.perf_counter(), time.process_time()
        videos = list(extract_videos(jobs, detector, encoder, resolved.settings))
        used, count = time.process_time() - processor, sum(len(video.features) for video in videos)
        times = ReaderTime(milliseconds(started, count), 1e3 * used / count)
    return times, {video.id: video.features.astype(np.float32) for video in videos}


def print_reader_times(label: str, paths: list[Path], config: ExtractConfig, rounds: int) -> None:
    """Print the medians of all rounds, in which the readers take turns, and of the ratios within a round."""
    torch.set_num_threads(1)  # as in a worker
    readers = {"PyAV": open_video, "OpenCV": open_with_opencv}
    _, features = time_reader(paths, config, open_video)  # also warms up
    _, others = time_reader(paths, config, open_with_opencv)
    similarity = np.concatenate([cosine(features[name], others[name]) for name in features])
    times: dict[str, list[ReaderTime]] = {name: [] for name in readers}
    for number in range(rounds):
        for name in list(readers)[:: 1 if number % 2 else -1]:
            times[name].append(time_reader(paths, config, readers[name])[0])
    for kind in ReaderTime._fields:
        values = {name: np.array([getattr(each, kind) for each in times[name]]) for name in readers}
        ratios = values["PyAV"] / values["OpenCV"]
        medians = ", ".join(f"{name} {np.median(ms):.2f} (lowest {ms.min():.2f})" for name, ms in values.items())
        print(
            f"{label}, stage one, {kind} time in ms/frame: {medians}; ratio of a round, median {np.median(ratios):.3f}, "
            f"{ratios.min():.3f} to {ratios.max():.3f}, ratio of the lowest "
            f"{values['PyAV'].min() / values['OpenCV'].min():.3f}; {rounds} rounds",
            flush=True,
        )
    print(f"{label}, cosine of features with one reader to those with the other, minimum {similarity.min():.6f}")


def copy_videos(paths: list[Path], folder: Path, count: int) -> list[Path]:
    """Return ``count`` copies of the videos, in turn."""
    folder.mkdir(exist_ok=True)
    copies = [folder / f"v{number}.mp4" for number in range(count)]
    for number, copy in enumerate(copies):
        if not copy.exists():
            shutil.copy(paths[number % len(paths)], copy)
    return copies


def compare(
    label: str, paths: list[Path], folder: Path, loop: ReferenceLoop, workers: int, configs: list[ExtractConfig]
) -> dict[ExtractConfig, Speeds]:
    times, reference = loop.step_by_step(paths)
    copies, speeds = copy_videos(paths, folder / "many", 24), {}
    loop_time, count = sum(times.values()), sum(map(len, reference.values()))
    steps = ", ".join(f"{step} {ms:.1f}" for step, ms in times.items())
    print(f"{label}, {len(paths)} videos, {count} frames")
    print(f"  the loop, step by step: {steps} = {loop_time:.1f} ms/frame")
    print(f"  the loop, frame by frame: {loop.frame_by_frame(paths, 60):.1f} ms/frame")
    for config in configs:
        _, _, features = time_extract(paths, config, folder, workers)
        extract_time, peak, _ = time_extract(copies, config, folder, workers)
        seconds, frames = time_command(copies, config, folder), count * len(copies) // len(paths)
        speeds[config] = Speeds(loop_time, extract_time, 1e3 * seconds / frames)
        single = [name for name in features if name != "six"]  # of six faces, the largest one is not one person
        similarity = np.concatenate([cosine(features[name], reference[name]) for name in single])
        print(
            f"  ceflpipe, {config.precision} by {config.backend}, {workers} workers: {extract_time:.1f} ms/frame, "
            f"{1e3 / extract_time:.0f} frames/s, {loop_time / extract_time:.1f} times faster than step by step; "
            f"workers' memory {peak:.0f} MB; cosine of features, mean {np.nanmean(similarity):.4f}, minimum "
            f"{np.nanmin(similarity):.4f}\n"
            f"    the whole command with its start-up, {frames} frames: {seconds:.1f} s, "
            f"{loop_time * frames / 1e3 / seconds:.1f} times",
            flush=True,
        )
    return speeds


def print_growth(folder: Path, encoder: Path, workers: int) -> None:
    paths, times = sorted(folder.glob("*.mp4")), []
    for count in (40, 400):
        copies = copy_videos(paths, folder / "many", count)
        extract_time, peak, _ = time_extract(copies, ExtractConfig(encoder=encoder), folder, workers)
        times.append(extract_time)
        print(f"  {count} videos: {1e3 / extract_time:.1f} frames/s, workers' memory at most {peak:.0f} MB")
    print(f"  400 videos at {times[0] / times[1]:.2f} times the speed of 40")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="per video")
    parser.add_argument("--encoder", type=Path, default=Path("artifacts/weights/actors.safetensors"))
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--decode", action="store_true", help="only the time of decoding")
    parser.add_argument("--reader", action="store_true", help="only the time of stage one by reader")
    parser.add_argument("--rounds", type=int, default=7, help="of --reader")
    parser.add_argument("--growth", action="store_true", help="also 40 videos against 400")
    arguments = parser.parse_args()
    if arguments.decode:
        with tempfile.TemporaryDirectory() as name:
            for label, size in SIZES.items():
                print_decode_times(label, write_videos(Path(name) / label, size, arguments.frames))
        return
    encoder = arguments.encoder.resolve()
    if not encoder.is_file():
        parser.error(f"{encoder}: no such encoder; build it with ceflpipe encoder actors")
    print(
        f"{platform.processor() or platform.machine()}, {num_cores()} cores, torch {torch.__version__}; "
        f"{matmul_speed('fp32'):.0f} GMAC/s fp32, {matmul_speed('bf16'):.0f} bf16"
    )
    if arguments.reader:
        config = ExtractConfig(encoder=encoder)
        with tempfile.TemporaryDirectory() as name:
            for label, size in SIZES.items():
                videos = write_videos(Path(name) / label, size, arguments.frames)
                print_reader_times(label, videos, config, arguments.rounds)
        return
    loop = ReferenceLoop(encoder)
    precisions = dict.fromkeys([resolve_precision("auto", torch.device("cpu")), "fp32"])
    configs = [
        ExtractConfig(encoder=encoder, crop_size=224, precision=precision, backend=backend)
        for backend in BACKENDS[".safetensors"]
        for precision in precisions
    ]
    for config in configs:
        print_encoder_speed(config, loop)
    with tempfile.TemporaryDirectory() as name:
        results = []
        for label, size in SIZES.items():
            folder = Path(name) / label
            videos = write_videos(folder, size, arguments.frames)
            results.append(compare(label, videos, folder, loop, arguments.workers, configs))
        print("both sizes together, times faster than the loop step by step (the command with its start-up)")
        for config in configs:
            total = Speeds(*map(sum, zip(*(speeds[config] for speeds in results), strict=True)))
            ratios = f"{total.loop / total.extract:.1f} ({total.loop / total.command:.1f})"
            print(f"  {config.precision} by {config.backend}: {ratios}")
        if arguments.growth:
            print_growth(Path(name) / "640x480", encoder, arguments.workers)
            time_up_to_date_check(Path(name) / "up-to-date", encoder)


if __name__ == "__main__":
    main()
