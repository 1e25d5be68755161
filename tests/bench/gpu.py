"""Speed of stage one on a GPU machine: python tests/bench/gpu.py [--device cuda] [--frames 60] [--videos 48] [--workers N]

Prints frames/s of each part alone (decode, detect, align, encode), of ceflpipe as a whole with the use of every GPU, and of the
loop a researcher would write (whole frames, one crop at a time, the network on the same GPU), and their ratios. On a processor
(--device cpu) the same code runs, with a processor in place of the GPU.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from bench_videos import SIZES, write_videos
from stage_one import ReferenceLoop, copy_videos

from ceflpipe.pipeline.executor import num_cores, process_executor
from ceflpipe.pipeline.paths import encoder_file
from ceflpipe.stages.device import resolve_devices
from ceflpipe.stages.extract.extract import extract_features
from ceflpipe.stages.extract.extract_config import (
    ExtractConfig,
    build_detector,
    build_encoder,
    build_networks,
    resolve_config,
)
from ceflpipe.stages.extract.face_crops import crop_face
from ceflpipe.stages.extract.tracking import FaceTracker
from ceflpipe.stages.extract.video_reader import open_video
from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry
from ceflpipe.stages.onnx_session import GPU_BATCH

BATCHES = {"cpu": 1, "cuda": 8}
"""Batches of crops that are on their way at a time, by the kind of device."""


class GpuLoop(ReferenceLoop):
    """The researcher's loop with its network on a device."""

    def __init__(self, encoder: Path, device: str) -> None:
        super().__init__(encoder)
        self.device = torch.device(device)
        self.network = self.network.to(self.device)
        self.mean, self.std = self.mean.to(self.device), self.std.to(self.device)

    def encode(self, crop: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(crop).to(self.device).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            return self.network(((pixels - self.mean) / self.std)[None])[0].cpu().numpy()


class Utilization:
    """While entered, asks nvidia-smi twice a second how busy the GPUs are; ``mean``: percent, None if that is not known."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Utilization:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def mean(self) -> float | None:
        return statistics.mean(self._samples) if self._samples else None

    def _run(self) -> None:
        if not shutil.which("nvidia-smi"):
            return
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._stop.wait(0.5):
            done = subprocess.run(query, capture_output=True, text=True, timeout=20)
            if done.returncode == 0 and done.stdout.split():
                self._samples.append(statistics.mean(map(float, done.stdout.split())))


def speed(function: Callable[[], int], repeats: int) -> float:
    """Return the median frames/s of a function that returns how many it has computed; the first call does not count."""
    function()
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        count = function()
        rates.append(count / (time.perf_counter() - started))
    return statistics.median(rates)


def report(part: str, frames_per_second: float, note: str = "") -> None:
    print(f"  {part + ':':44} {frames_per_second:10.1f} frames/s{note and f'  ({note})'}", flush=True)


def measure_parts(path: Path, config: ExtractConfig, precisions: Iterable[str], repeats: int) -> None:
    """Print the speed of each part alone: decoding, detection and alignment in this process on one core, encoding on the device."""

    def measure(function: Callable[[], int]) -> float:
        return speed(function, repeats)

    images = [frame.image for frame in open_video(path).frames()]
    report("decode", measure(lambda: sum(1 for _ in open_video(path).frames())), "one core")
    local = build_detector(config.model_copy(update={"detector_device": "cpu"}))
    assert local is not None
    report("detect, whole frames, processor", measure(lambda: sum(1 for image in images if local(image))), "one core")

    def track() -> int:
        tracker = FaceTracker(local)
        return sum(1 for image in images if tracker(image) or True)

    report("detect, around the last face, processor", measure(track), "one core")
    if config.device == "cpu" or config.detector_device == "cuda":
        network = build_networks(config)[0]
        scale = min(1.0, config.det_size / max(images[0].shape[:2]))
        height, width = (round(side * scale) for side in images[0].shape[:2])
        pixels = np.random.default_rng(0).uniform(-120, 120, (GPU_BATCH, 3, height, width)).astype(np.float32)
        report(
            f"detect, whole frames, {config.device}",
            measure(lambda: len(network(pixels)[0])),
            f"batches of {GPU_BATCH}",
        )
    else:
        print("  detection runs on processors: pip uninstall onnxruntime and pip install onnxruntime-gpu")
    tracker = FaceTracker(local)
    faces = [(image, face) for image in images if (face := tracker(image))]
    size = resolve_config(config).settings.crop_size
    report(
        "align", measure(lambda: len([crop_face(image, face, "landmarks", size) for image, face in faces])), "one core"
    )
    count = BATCHES[config.device.partition(":")[0]]
    for precision in precisions:
        encoder = build_encoder(config.model_copy(update={"precision": precision}))
        crops = np.random.default_rng(0).integers(0, 256, (count * encoder.batch_size, size, size, 3), np.uint8)

        def encode(encoder=encoder, crops=crops) -> int:
            fetches = [
                encoder.encode_async(crops[i : i + encoder.batch_size])
                for i in range(0, len(crops), encoder.batch_size)
            ]
            return sum(len(fetch()) for fetch in fetches)

        report(f"encode, {precision}, {config.device}", measure(encode), f"batches of {encoder.batch_size}, {size} px")


def measure_whole(
    paths: list[Path], config: ExtractConfig, devices: tuple[str, ...], workers: int, folder: Path
) -> float:
    """Return frames/s of an extraction, without the start of the workers."""
    entries = tuple(VideoEntry(path.stem, path.name, "fear") for path in paths)
    executor = process_executor(workers)
    for name, listed in (("warm-up", entries[: 2 * workers]), ("bench", entries)):
        cache = folder / f"{name}.h5"
        cache.unlink(missing_ok=True)
        manifest = Manifest(name, paths[0].parent, listed, ("fear",))
        with Utilization() as utilization:
            result = extract_features(manifest, config, cache, executor=executor, workers=workers, gpus=devices)
        if result.failed:
            raise SystemExit(f"{len(result.failed)} videos failed: {result.failed[0]}")
    rate = result.num_frames / result.seconds
    used = "unknown" if utilization.mean is None else f"{utilization.mean:.0f} %"
    report(
        f"ceflpipe, {len(devices)} x {config.device}, {workers} workers", rate,
        f"{result.num_frames} frames, with the start of the process of each GPU; use of the GPUs: {used}",
    )  # fmt: skip
    return rate


def describe_machine(devices: tuple[str, ...]) -> str:
    import onnxruntime

    names = [torch.cuda.get_device_name(device) if device.startswith("cuda") else "processor" for device in devices]
    providers = ", ".join(onnxruntime.get_available_providers())
    return (
        f"{len(devices)} devices: {', '.join(names)}; {num_cores()} cores; torch {torch.__version__}; onnxruntime "
        f"{onnxruntime.__version__} ({providers})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda (every visible GPU), cuda:1, cuda:0,cuda:2, or cpu")
    parser.add_argument("--frames", type=int, default=60, help="per video")
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--repeats", type=int, default=5, help="of each part")
    parser.add_argument("--size", choices=SIZES, action="append", help="default: all")
    parser.add_argument("--encoder", default="faces", help="a file, or the name of an encoder")
    arguments = parser.parse_args()
    devices, encoder = resolve_devices(arguments.device), encoder_file(arguments.encoder)
    print(describe_machine(devices))
    first = ExtractConfig(encoder=encoder, device=devices[0])
    config = resolve_config(first).config
    loop = GpuLoop(encoder, devices[0])
    precisions = dict.fromkeys([config.precision, "fp32"])
    with tempfile.TemporaryDirectory() as name:
        for label in arguments.size or SIZES:
            folder = Path(name) / label
            videos = write_videos(folder, SIZES[label], arguments.frames)
            print(label)
            measure_parts(videos[0], config, precisions, arguments.repeats)
            rate = measure_whole(
                copy_videos(videos, folder / "many", arguments.videos), config, devices, arguments.workers, folder
            )
            loop_rate = 1e3 / loop.frame_by_frame(videos, 60)
            report(f"the loop, {devices[0]}", loop_rate, "one process, one crop at a time")
            print(f"  ceflpipe is {rate / loop_rate:.1f} times as fast as the loop", flush=True)


if __name__ == "__main__":
    main()
