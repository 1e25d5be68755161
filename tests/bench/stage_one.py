"""Speed of stage one: python tests/bench/stage_one.py [--growth] [--frames 60] [--encoder FILE]

On the same videos, in one session: the loop a researcher writes (retinaface.detect_faces on the whole frame, insightface's
norm_crop, torchvision's resnet18 in fp32 one crop at a time), frame by frame and with its parts timed apart, against ours;
then the whole command with its start-up; with --growth, 40 videos against 400.
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
from pathlib import Path

import numpy as np
import torch
from films import SIZES, films
from memory import Memory
from recognition import recognised

from ceflpipe.cache.hdf5 import read_features
from ceflpipe.pipeline.executor import num_cores, process_executor
from ceflpipe.stages.device import resolve_precision
from ceflpipe.stages.encoder.weights import NORMALIZATIONS, load_encoder, read_encoder_metadata
from ceflpipe.stages.extract.encoder_base import BACKENDS
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_encoder
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

GMAC = 1.82
"""Of ResNet-18 on a 224 x 224 picture (torchvision's documentation)."""


class Researcher:
    """The reference: every part as its own library offers it, with that library's own threads."""

    def __init__(self, weights: Path) -> None:
        self.network = load_encoder(weights)
        mean, std = NORMALIZATIONS[read_encoder_metadata(weights).normalization]
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def detect(self, picture: np.ndarray) -> np.ndarray | None:
        from retinaface import detect_faces

        faces = detect_faces(picture, score_threshold=0.5)
        if not faces:
            return None
        largest = max(faces, key=lambda face: face.width * face.height)
        return np.array([(p.x, p.y) for p in largest.landmarks], np.float32)

    def align(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        from insightface.utils.face_align import norm_crop

        return norm_crop(picture, landmarks, image_size=224)

    def encode(self, crop: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            return self.network(((pixels - self.mean) / self.std)[None])[0].numpy()


def milliseconds(started: float, count: int) -> float:
    return 1e3 * (time.perf_counter() - started) / count


def parts_apart(who: Researcher, paths: list[Path]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Milliseconds per frame of each part when each runs on its own, and the features of each video."""
    times, features = {}, {}
    started = time.perf_counter()
    pictures = {path.stem: list(open_video(path).frames()) for path in paths}
    count = sum(map(len, pictures.values()))
    times["decode"] = milliseconds(started, count)
    started = time.perf_counter()
    landmarks = {name: [who.detect(picture) for picture in video] for name, video in pictures.items()}
    times["detect"] = milliseconds(started, count)
    started = time.perf_counter()
    crops = {
        name: [who.align(p, x) if x is not None else None for p, x in zip(video, landmarks[name], strict=True)]
        for name, video in pictures.items()
    }
    times["align"] = milliseconds(started, count)
    started = time.perf_counter()
    for name, video in crops.items():
        features[name] = np.stack([who.encode(c) if c is not None else np.full(512, np.nan) for c in video])
    times["encode"] = milliseconds(started, count)
    return times, features


def frame_by_frame(who: Researcher, paths: list[Path], most: int) -> float:
    """Milliseconds per frame when the parts alternate."""
    started, count = time.perf_counter(), 0
    for path in paths:
        for picture in open_video(path).frames():
            if (landmarks := who.detect(picture)) is not None:
                who.encode(who.align(picture, landmarks))
            count += 1
            if count == most:
                return milliseconds(started, count)
    return milliseconds(started, count)


def ours(
    paths: list[Path], wishes: ExtractConfig, folder: Path, workers: int
) -> tuple[float, float, dict[str, np.ndarray]]:
    """Milliseconds per frame and peak memory with the workers already there, and the features."""
    listed = Manifest("bench", paths[0].parent, tuple(VideoEntry(p.stem, p.name, "fear") for p in paths), ("fear",))
    warm = Manifest("warm", paths[0].parent, listed.entries[: 2 * workers], ("fear",))
    mapper = process_executor(workers)
    extract_features(warm, wishes, folder / "warm.h5", executor=mapper, workers=len(warm.entries))
    cache = folder / "ours.h5"
    cache.unlink(missing_ok=True)
    with Memory() as memory:
        result = extract_features(listed, wishes, cache, executor=mapper, workers=workers)
    table = read_features(cache)
    (folder / "warm.h5").unlink()
    return (1e3 * result.seconds / result.num_frames, memory.peak,
            {p.stem: table.features[table.rows(p.stem)].astype(np.float32) for p in paths})  # fmt: skip


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def product_rate(precision: str, side: int = 2048, repeats: int = 20) -> float:
    """Measured GMAC/s of a square matrix product."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.rand(side, side).to(kind), torch.rand(side, side).to(kind)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return side**3 / statistics.median(times) / 1e9


def encoder_alone(wishes: ExtractConfig, who: Researcher) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (32, 28, 28, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    encoder = build_encoder(wishes)
    mine, times = encoder(crops), []
    for _ in range(12):
        started = time.perf_counter()
        encoder(crops)
        times.append(milliseconds(started, len(crops)))
    floor = 1e3 * GMAC / product_rate(wishes.precision)
    theirs = np.stack([who.encode(crop) for crop in crops])
    agreement = cosine(mine.astype(np.float32), theirs).mean()
    print(f"  encoder, {wishes.precision} by {wishes.backend}: {np.median(times):.1f} ms/frame, {np.median(times) / floor:.2f} times its floor of "
          f"{floor:.1f} ms; cosine to fp32 on equal crops {agreement:.5f}")  # fmt: skip


def repeated(paths: list[Path], folder: Path, videos: int) -> list[Path]:
    """The same videos again and again under new names."""
    folder.mkdir(exist_ok=True)
    made = []
    for number in range(videos):
        copy = folder / f"v{number}.mp4"
        if not copy.exists():
            shutil.copy(paths[number % len(paths)], copy)
        made.append(copy)
    return made


def whole_command(paths: list[Path], wishes: ExtractConfig, folder: Path) -> float:
    """Seconds of `ceflpipe extract` as a user types it, from its start to its end."""
    (folder / "command.h5").unlink(missing_ok=True)
    listing = folder / "command.csv"
    listing.write_text("id,path,label\n" + "".join(f"{p.stem},{p.name},fear\n" for p in paths))
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ceflpipe.pipeline", "extract", "--manifest", str(listing), "--root", str(paths[0].parent),
         "--encoder", str(wishes.encoder), "--backend", wishes.backend, "--precision", wishes.precision,
         "--out", str(folder / "command.h5"), "--quiet"], check=True, capture_output=True,
    )  # fmt: skip
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="per video")
    parser.add_argument("--encoder", type=Path, default=Path("artifacts/weights/actors.safetensors"))
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--growth", action="store_true", help="also 40 videos against 400")
    arguments = parser.parse_args()
    weights = arguments.encoder.resolve()
    if not weights.is_file():
        parser.error(f"{weights}: no such weights; make them with ceflpipe encoder actors")
    auto = resolve_precision("auto", torch.device("cpu"))
    print(f"{platform.processor() or platform.machine()}, {num_cores()} cores, torch {torch.__version__}; "
          f"{product_rate('fp32'):.0f} GMAC/s fp32, {product_rate('bf16'):.0f} bf16")  # fmt: skip
    who = Researcher(weights)
    kinds = [
        ExtractConfig(encoder=weights, precision=p, backend=b) for b in BACKENDS for p in dict.fromkeys([auto, "fp32"])
    ]
    for wishes in kinds:
        encoder_alone(wishes, who)
    with tempfile.TemporaryDirectory() as name:
        totals: dict[ExtractConfig, list[Ratio]] = {wishes: [] for wishes in kinds}
        for label, size in SIZES.items():
            folder = Path(name) / label
            for wishes, ratio in compare(
                label, films(folder, size, arguments.frames), folder, who, arguments.workers, kinds
            ):
                totals[wishes].append(ratio)
        print("both sizes together, times faster than the loop's parts apart (the command with its start-up)")
        for wishes, ratios in totals.items():
            kind, fast, command = (sum(part) for part in zip(*ratios, strict=True))
            print(f"  {wishes.precision} by {wishes.backend}: {kind / fast:.1f} ({kind / command:.1f})")
        if arguments.growth:
            growth(Path(name) / "640x480", weights, arguments.workers)
            recognised(Path(name) / "recognised", weights)


Ratio = tuple[float, float, float]
"""Milliseconds per frame: the loop with its parts apart, ours, and our whole command."""


def compare(
    label: str, paths: list[Path], folder: Path, who: Researcher, workers: int, kinds: list[ExtractConfig]
) -> list[tuple[ExtractConfig, Ratio]]:
    times, theirs = parts_apart(who, paths)
    many, ratios = repeated(paths, folder / "many", 24), []
    kind, count = sum(times.values()), sum(map(len, theirs.values()))
    print(f"{label}, {len(paths)} videos, {count} frames")
    print("  the loop, parts apart: " + ", ".join(f"{k} {v:.1f}" for k, v in times.items()) + f" = {kind:.1f} ms/frame")
    print(f"  the loop, frame by frame: {frame_by_frame(who, paths, 60):.1f} ms/frame")
    for wishes in kinds:
        _, _, mine = ours(paths, wishes, folder, workers)
        per_frame, peak, _ = ours(many, wishes, folder, workers)
        seconds, frames = whole_command(many, wishes, folder), count * len(many) // len(paths)
        ratios.append((wishes, (kind, per_frame, 1e3 * seconds / frames)))
        alone = [n for n in mine if n != "six"]  # where six people are in view, "the largest face" is not one person
        agreement = np.concatenate([cosine(mine[n], theirs[n]) for n in alone])
        print(f"  ours, {wishes.precision} by {wishes.backend}, {workers} workers: {per_frame:.1f} ms/frame, "
              f"{1e3 / per_frame:.0f} frames/s, {kind / per_frame:.1f} times faster than the parts apart; "
              f"workers' memory {peak:.0f} MB; cosine of features mean {np.nanmean(agreement):.4f}, least "
              f"{np.nanmin(agreement):.4f}")  # fmt: skip
        print(f"    the whole command with its start-up, {frames} frames: {seconds:.1f} s, "
              f"{kind * frames / 1e3 / seconds:.1f} times", flush=True)  # fmt: skip
    return ratios


def growth(folder: Path, weights: Path, workers: int) -> None:
    paths, rates = sorted(folder.glob("*.mp4")), []
    for videos in (40, 400):
        many = repeated(paths, folder / "many", videos)
        per_frame, peak, _ = ours(many, ExtractConfig(encoder=weights), folder, workers)
        rates.append(per_frame)
        print(f"  {videos} videos: {1e3 / per_frame:.1f} frames/s, workers' memory at most {peak:.0f} MB")
    print(f"  400 videos at {rates[0] / rates[1]:.2f} times the speed of 40")


if __name__ == "__main__":
    main()
