"""Speed of stage one in each precision: python tests/bench/precisions.py [--frames 60] [--rounds 5]

The encoder of the package with crops of 96 pixels, and the same network with crops of 224, in fp32, in bf16 where the processor
has it, and in int8: processor time of the encoder alone and of all of stage one, in one process and one thread. Ways take turns in
every round. The ranges of int8 are measured on the faces of half of the videos; similarities are those of the others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_videos import SIZES, write_videos

from ceflpipe.pipeline.paths import PRETRAINED_DIR
from ceflpipe.stages.encoder.weights import read_encoder_metadata, write_activation_ranges
from ceflpipe.stages.extract.encoder_base import Encoder
from ceflpipe.stages.extract.encoder_openvino import OpenVINOEncoder, measure_ranges, openvino_available
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_settings
from ceflpipe.stages.extract.extractor import extract_videos
from ceflpipe.stages.extract.face_tracks import VideoJob
from ceflpipe.stages.extract.quantization import cosine_similarity

ENCODER = PRETRAINED_DIR / "faces.safetensors"


def keep_crops(paths: list[Path], size: int) -> np.ndarray:
    """Return the crops (N, S, S, 3) that stage one makes of videos."""
    config = ExtractConfig(encoder=ENCODER, keep="crops", crop_size=size, device="cpu")
    jobs = [VideoJob(path.stem, path) for path in paths]
    videos = extract_videos(jobs, build_detector(config), build_encoder(config), resolve_settings(config))
    return np.concatenate([video.features.reshape(-1, size, size, 3) for video in videos])


def time_stage_one(paths: list[Path], encoder: Encoder, size: int) -> float:
    """Return the milliseconds of processor time per frame of detection, alignment and encoding."""
    config = ExtractConfig(encoder=ENCODER, crop_size=size, device="cpu", backend="torch", precision="fp32")
    settings, detector = resolve_settings(config), build_detector(config)
    started = time.process_time()
    videos = list(extract_videos([VideoJob(path.stem, path) for path in paths], detector, encoder, settings))
    return 1e3 * (time.process_time() - started) / sum(len(video.features) for video in videos)


def time_encoder(encoder: Encoder, crops: np.ndarray) -> float:
    started = time.process_time()
    encoder(crops)
    return 1e3 * (time.process_time() - started) / len(crops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="per video")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"ONEDNN_MAX_CPU_ISA={os.environ.get('ONEDNN_MAX_CPU_ISA', '')}", time.strftime("%Y-%m-%d"))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_videos(Path(folder), SIZES["640x480"], arguments.frames)
        for size in (96, 224):
            crops = keep_crops(paths, size)
            half = len(crops) // 2
            quantized = Path(folder) / f"int8-{size}.safetensors"
            ranges = measure_ranges(ENCODER, crops[:half])
            write_activation_ranges(quantized, read_encoder_metadata(ENCODER), "int8", ranges, {})
            ways: dict[str, Encoder] = {
                "fp32 by torch": TorchEncoder(ENCODER, "cpu", "fp32"),
                "fp32 by openvino": OpenVINOEncoder(ENCODER, size, "fp32"),
            }
            if openvino_available("bf16"):
                ways["bf16 by openvino"] = OpenVINOEncoder(ENCODER, size, "bf16")
            ways["int8 by openvino"] = OpenVINOEncoder(quantized, size, "int8")
            expected = ways["fp32 by torch"](crops[half:])
            for way in ways.values():
                time_stage_one(paths[:1], way, size)
            rounds = [
                {name: (time_encoder(way, crops), time_stage_one(paths, way, size)) for name, way in ways.items()}
                for _ in range(arguments.rounds)
            ]
            for name, way in ways.items():
                encoder, total = (statistics.median(each[name][i] for each in rounds) for i in (0, 1))
                faster = statistics.median(each["fp32 by openvino"][1] / each[name][1] for each in rounds)
                similarity = cosine_similarity(way(crops[half:]), expected)
                print(
                    f"{size} px, {name}: encoder {encoder:.2f} ms a frame, stage one {total:.2f} ms ({1e3 / total:.0f} frames/s a "
                    f"core), {faster:.2f} times fp32 by openvino; cosine to torch's fp32: lowest {similarity.min():.5f}, mean "
                    f"{similarity.mean():.5f} of {len(similarity)} faces",
                    flush=True,
                )


if __name__ == "__main__":
    main()
