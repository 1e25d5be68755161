"""How well embeddings tell persons apart: cosine similarities of face tracks of one person and of different persons.

    python tests/bench/person_similarity.py FOLDER [--network FILE …] [--encoder faces …]

FOLDER has a folder per person with videos, each of that person alone. A video counts with the longest of its face tracks,
embedded as predict does it. Of all pairs of videos the quantiles of the similarity are printed, and the threshold at which as many
pairs of one person are told apart as pairs of different persons are taken for one (equal error rate). Use it to choose
--person-thresh for a network of your own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ceflpipe.pipeline.paths import encoder_file
from ceflpipe.stages.encoder.weights import read_crop_size
from ceflpipe.stages.extract.encoder_base import Encoder
from ceflpipe.stages.extract.extract_config import ExtractConfig, build_detector, build_encoder, resolve_settings
from ceflpipe.stages.extract.face_tracks import VideoJob
from ceflpipe.stages.predict.identity import IdentityNetwork, unit
from ceflpipe.stages.predict.tracker import track_faces

SIDE = 16
"""Of the pixels that are compared with the networks."""


@dataclass(frozen=True)
class EncoderEmbedding:
    """The frame encoder's features in place of an identity network."""

    encoder: Encoder
    crop_size: int

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        return unit(unit(self.encoder(crops).astype(np.float64)).mean(axis=0))


class PixelEmbedding:
    """Gray pixels less their mean: what any embedding must be better than."""

    crop_size = 96

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        rows = [
            cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for crop in crops
        ]
        flat = np.stack(rows).reshape(len(crops), -1).astype(np.float64)
        return unit(unit(flat - flat.mean(axis=1, keepdims=True)).mean(axis=0))


@dataclass(frozen=True)
class Comparison:
    """Similarities of pairs ``same`` (S,) and ``different`` (D,), equal error rate and its threshold."""

    same: np.ndarray
    different: np.ndarray
    error: float
    thresh: float


def compare(embeddings: np.ndarray, persons: np.ndarray) -> Comparison:
    """Compare all pairs of embeddings (N, D), of length one, of ``persons`` (N,)."""
    one, two = np.triu_indices(len(persons), 1)
    similarity, is_same = (embeddings @ embeddings.T)[one, two], persons[one] == persons[two]
    same, different = similarity[is_same], similarity[~is_same]
    levels = np.sort(similarity)
    middles = (levels[1:] + levels[:-1]) / 2
    missed = np.searchsorted(np.sort(same), middles) / len(same)
    taken = 1 - np.searchsorted(np.sort(different), middles) / len(different)
    errors = np.maximum(missed, taken)
    best = np.flatnonzero(errors == errors.min())  # where nothing is wrong, in the middle of the gap
    return Comparison(same, different, float(errors.min()), float(middles[best].mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", type=Path, nargs="*", default=[])
    parser.add_argument("--encoder", nargs="*", default=["faces"])
    arguments = parser.parse_args()
    config = ExtractConfig(encoder=encoder_file("faces"), precision="fp32", device="cpu")
    parts = build_detector(config), build_encoder(config), resolve_settings(config)
    embeddings = {str(path): IdentityNetwork(path) for path in arguments.network}
    for name in arguments.encoder:
        own = ExtractConfig(encoder=encoder_file(name), precision="auto", device="cpu")
        embeddings[name] = EncoderEmbedding(build_encoder(own), read_crop_size(own.encoder))
    embeddings[f"{SIDE} x {SIDE} gray pixels"] = PixelEmbedding()
    videos = [(folder.name, path) for folder in sorted(arguments.folder.iterdir()) for path in sorted(folder.iterdir())]
    print(f"{len(videos)} videos of {len({person for person, _ in videos})} persons")
    for name, network in embeddings.items():
        rows, persons = [], []
        for person, path in videos:
            tracks = list(track_faces(VideoJob(path.name, path), *parts, network=network))
            if not tracks:
                print(f"{path}: no face track")
                continue
            rows.append(max(tracks, key=lambda track: len(track.features.features)).embedding)
            persons.append(person)
        result = compare(np.stack(rows), np.array(persons))
        print(f"{name}: equal error rate {result.error:.3f} at {result.thresh:.3f}")
        for what, values in (("one person", result.same), ("different persons", result.different)):
            quantiles = " ".join(f"{value:.3f}" for value in np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))
            print(f"  {what}: n = {len(values)} pairs, least, 5 %, median, 95 %, largest: {quantiles}")


if __name__ == "__main__":
    main()
