"""Python interface: extract, load_features, cross_validate, train_final, predict and CEFLNet, all also names of ``ceflpipe``.

>>> import ceflpipe
>>> result = ceflpipe.extract("list.csv", "features.h5", encoder="encoder.safetensors", crop_size=64)
>>> result.failed
[]
>>> run = ceflpipe.cross_validate("list.csv", "features.h5", "run", folds=2, num_clips=3, frames_per_clip=2, epochs=2)
>>> [prediction.label in run.labels for prediction in ceflpipe.predict(run, ["v0.mp4"], encoder="encoder.safetensors")]
[True]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ..cache.errors import CeflError, did_you_mean
from ..cache.features import FeatureTable
from ..cache.hdf5 import read_features
from ..stages.callbacks import ProgressCallback, ignore_progress
from ..stages.device import resolve_device
from ..stages.encoder.resnet18 import RESNET18_WIDTH
from ..stages.extract.extract import ExtractResult, Redo, extract_features
from ..stages.extract.extract_config import ExtractConfig, resolve_backend, resolve_backend_devices
from ..stages.heads import cross_validation
from ..stages.heads.ceflnet import CEFLNetHead
from ..stages.heads.final_model import final_config
from ..stages.heads.layers import BatchedDropout, init_weights
from ..stages.heads.run_card import CardTexts
from ..stages.heads.run_io import Run, read_run
from ..stages.heads.train_config import (
    CVConfig,
    FoldScheme,
    LongVideos,
    TestView,
    TrainConfig,
    TunedSetting,
)
from ..stages.manifest.manifest import Manifest, read_manifest
from ..stages.predict import predict as predict_stage
from ..stages.predict.person_names import NO_NAMES, read_person_names
from ..stages.predict.prediction import Prediction
from ..stages.predict.results import PredictOptions
from .config import load_cv_config, load_train_config, validate
from .executor import num_cores, process_executor
from .paths import encoder_file, find_run
from .predicting import predict_together
from .training import encoder_card, resolve_train_config

__all__ = ["CEFLNet", "cross_validate", "extract", "load_features", "predict", "train_final"]

PathLike = str | Path


class ExtractOptions(TypedDict, total=False):
    """Keywords of ``extract``: fields of ExtractConfig in stages.extract.extract_config, which has their meaning and defaults."""

    input: Literal["video", "crops"]
    detector: str
    det_size: int
    det_thresh: float
    align: Literal["landmarks", "box"]
    crop_size: int | None
    keep: Literal["features", "crops"]
    device: str
    detector_device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"]
    backend: Literal["auto", "torch", "onnxruntime", "openvino"]
    fps: float
    rotation: Literal["manifest", "auto"]


class CrossValidateOptions(TypedDict, total=False):
    """Keywords of ``cross_validate``: fields of TrainConfig and CVConfig in stages.heads.train_config.

    params.yaml has their meaning and their defaults.
    """

    head: str
    loss: Literal["auto", "bce", "cross-entropy"]
    num_clips: int
    frames_per_clip: int
    long_videos: LongVideos
    test_view: TestView
    epochs: int
    warmup_epochs: int
    cosine_t_max: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    class_weights: bool
    deterministic: bool
    precision: Literal["auto", "fp32", "bf16"]
    fold_scheme: FoldScheme
    folds: int
    seed: int
    num_seeds: int
    checkpoint: Literal["last", "best-test"]
    tta_views: int
    allow_leaks: bool
    tune: tuple[TunedSetting, ...]
    tune_learning_rates: tuple[float, ...]
    tune_weight_decays: tuple[float, ...]
    tune_folds: int
    tune_splits: int


def extract(
    manifest: PathLike | Manifest,
    cache: PathLike,
    *,
    encoder: PathLike,
    root: PathLike | None = None,
    labels: Sequence[str] | None = None,
    workers: int = 1,
    retry_failed: bool = False,
    redo: Redo = "",
    detections: Sequence[PathLike] | None = (),
    on_progress: ProgressCallback = ignore_progress,
    **config: Unpack[ExtractOptions],
) -> ExtractResult:
    """STAGE ONE: bring a feature cache up to date with a list of videos (a CSV with the columns path,label,…).

    ``encoder``: a file built by ``ceflpipe encoder``, or a name: of one in artifacts/weights, or of one that comes with
    ceflpipe. ``workers``: processes; 0 for one per core; in a script more than one needs the usual
    ``if __name__ == "__main__"``. ``config``: see ExtractOptions, e.g. align="box"; without crop_size the encoder file's is
    used. A GPU, or with device="cuda" every one, encodes for all workers if there are more than one. Finished videos are not
    redone; ``failed`` of the result lists (id, status, reason). ``on_progress`` counts videos. Raises CeflError if the list, the
    encoder or an option cannot be used, or if another process writes the cache.

    ``retry_failed`` and ``redo`` ("settings" or "all") are --retry-failed and --redo of the command. ``detections``: feature
    caches of the same videos by other encoders, whose faces are not searched again; None: find all faces, also those known.

    >>> extract("list.csv", "features.h5", encoder="encoder.safetensors", crop_size=64).num_videos
    6
    """
    options = validate(ExtractConfig, {"encoder": encoder_file(encoder), **config}, "extract")
    devices = resolve_backend_devices(resolve_backend(options), options.device)
    options = options.model_copy(update={"device": devices[0]})
    count = workers or num_cores()
    executor = process_executor(count) if count > 1 else None
    return extract_features(
        _read_manifest(manifest, root, labels), options, Path(cache), executor=executor, workers=count,
        gpus=devices if devices != ("cpu",) else (), retry_failed=retry_failed, redo=redo,
        detections=None if detections is None else [Path(file) for file in detections], on_progress=on_progress,
    )  # fmt: skip


def load_features(cache: PathLike, *, verify: bool = True) -> FeatureTable:
    """Load a feature cache into memory: ``table[id]`` is the features (T, D) of a video, float16.

    Raises CeflError if it is not a cache, or (``verify``) if its bytes do not match their checksums.

    >>> table = load_features("features.h5")
    >>> table["v0"].shape
    (12, 512)
    """
    return read_features(Path(cache), verify=verify)


class CEFLNetOutput(NamedTuple):
    """Outputs for B videos: logits (B, C); embedding (B, C * dim); intensity (B, C, clips), the map A, summing to one over
    clips; frame_weights (B, clips, frames) in 0..1."""

    logits: Tensor
    embedding: Tensor
    intensity: Tensor
    frame_weights: Tensor


class CEFLNet(nn.Module):
    """The trainable part of CEFLNet on features: SAL (equation 1), LRL (2 and 3), EIAN (4 to 9; logits, before the softmax of
    10), one model.

    ``num_classes``: labels C. ``dim``: width of the features (``table.width``), 512 for ResNet-18. ``seed``: of the initial
    weights. Readings where the paper is ambiguous: see docs/paper.md.

    >>> head = CEFLNet(num_classes=6)
    >>> output = head(torch.rand(8, 7, 5, 512))  # 8 videos of 7 clips of 5 frames
    >>> output.logits.shape, output.intensity.shape
    (torch.Size([8, 6]), torch.Size([8, 6, 7]))
    """

    def __init__(self, num_classes: int, dim: int = RESNET18_WIDTH, seed: int = 0) -> None:
        super().__init__()
        self.head = CEFLNetHead(1, dim, num_classes)
        init_weights(self.head, [torch.Generator().manual_seed(seed)])

    def forward(self, frames: Tensor) -> CEFLNetOutput:
        """Return the outputs for features (B, clips, frames, dim)."""
        output = self.head(frames[None], BatchedDropout(None))
        return CEFLNetOutput(output.logits[0], output.embedding[0], output.intensity[0], output.frame_weights[0])


def cross_validate(
    manifest: PathLike | Manifest,
    cache: PathLike,
    out: PathLike,
    *,
    root: PathLike | None = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    on_progress: ProgressCallback = ignore_progress,
    **config: Unpack[CrossValidateOptions],
) -> Run:
    """STAGE TWO: train a head per fold and seed on cached features, test each on its fold, write and return the run.

    ``config``: see CrossValidateOptions, e.g. head="cefl", folds=5; what is left out is that of params.yaml.
    ``run.metrics["war"]`` has mean, std_ddof0, std_ddof1 and n; ``run.predictions()`` is a table of every test video.
    ``on_progress`` counts epochs. Raises CeflError if the manifest, cache or configuration cannot be used, or a loss is not
    finite. Columns of predictions(): see stages/heads/predictions.py.

    >>> run = cross_validate("list.csv", "features.h5", "run", folds=2, num_clips=3, frames_per_clip=2, epochs=2)
    >>> len(run.predictions())
    6
    """
    known = [*TrainConfig.model_fields, *CVConfig.model_fields]
    for key in config:
        if key not in known:
            raise CeflError(f"cross_validate: unknown keyword {key}{did_you_mean(key, known)}")
    cv = load_cv_config(None, **{key: value for key, value in config.items() if key in CVConfig.model_fields})
    train = load_train_config(None, **{key: value for key, value in config.items() if key in TrainConfig.model_fields})
    torch_device = resolve_device(device)
    table = load_features(cache)
    return cross_validation.cross_validate(
        _read_manifest(manifest, root, labels), table,
        resolve_train_config(train, torch_device), cv, Path(out), device=torch_device,
        command="ceflpipe.cross_validate", card_texts=CardTexts(encoder=encoder_card(table.settings)), on_progress=on_progress,
    )  # fmt: skip


def train_final(
    run: PathLike | Run,
    manifest: PathLike | Manifest,
    cache: PathLike,
    out: PathLike,
    *,
    root: PathLike | None = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Train the model to use, on all videos of a cross-validated run, one per seed; write and return it.

    Settings and seeds are those of ``run``; one that was tuned has the median of what its folds chose. It has no test: its
    metrics quote the scores of ``run`` as those to expect, ``metrics["expected_war"]``. Raises CeflError if ``run`` is not a
    complete cross-validation of these videos and features by this code. As ``ceflpipe train-heads --final``.

    >>> run = cross_validate("list.csv", "features.h5", "run", folds=2, num_clips=3, frames_per_clip=2, epochs=2)
    >>> final = train_final(run, "list.csv", "features.h5", "run-final")
    >>> final.metrics["videos"], final.metrics["expected_war"] == run.metrics["war"]
    (6, True)
    """
    reference = run if isinstance(run, Run) else read_run(Path(run))
    table = load_features(cache)
    return cross_validation.cross_validate(
        _read_manifest(manifest, root, labels), table, final_config(reference), reference.cv.without_tuning(), Path(out),
        device=resolve_device(device), command="ceflpipe.train_final", final_of=reference,
        card_texts=CardTexts(encoder=encoder_card(table.settings)), on_progress=on_progress,
    )  # fmt: skip


def predict(
    run: PathLike | Run,
    videos: Sequence[PathLike],
    *,
    encoder: PathLike | None = None,
    device: str = "auto",
    rotation: int | str = 0,
    region: str | Sequence[int] = "",
    fps: float = 0.0,
    input: Literal["video", "crops"] | None = None,
    calibration: bool = True,
    all_faces: bool = False,
    identity_network: PathLike | None = None,
    person_thresh: float | None = None,
    people: PathLike | None = None,
    workers: int = 1,
) -> list[Prediction]:
    """Return the prediction of a run (the mean over its folds and seeds) for the main face of each video, in order.

    ``all_faces``: return one for every face track of each video, in order of appearance, instead. ``identity_network``: an ONNX
    file, by which tracks are joined to persons; ``person_thresh``: cosine similarity (-1..1) from which they are, None for that
    of the network; ``people``: a CSV of names. Each is the option of ``ceflpipe predict`` of its name: a prediction has
    ``track``, ``person``, ``name``, ``similarity`` and ``unsure``.

    ``run``: a run, its folder, or "faces", which comes with the package and was trained on photographs of real people.
    ``encoder``: the encoder that the run was trained with, a file or a name; default: the one of its name.
    ``rotation``: 0, 90, 180 or 270 degrees clockwise, after what the file itself says, or "auto", so that
    faces are upright. ``region``: only this part of every frame, left, top, width and height in pixels after the rotation.
    ``fps``: of folders of images; 0: unknown, so that 25 is assumed. ``input``: "crops" if the videos are face crops of the
    kind that the run was trained on. ``calibration``: False for probabilities as the models give them, not at the
    run's temperature, which is the ``temperature`` of a prediction, None without one. ``workers``: processes; 0 for one per
    core; with more than one a video that kills its process or stalls its decoder fails alone, and a script needs the usual
    ``if __name__ == "__main__"``. A video without a usable face has the reason in ``failure``. ``frames()`` and ``segments()``
    of a prediction are data frames, a row per frame and a row per segment. Raises CeflError if the run cannot be read, the
    encoder is another one, or an option cannot be used.

    >>> [prediction] = predict("run", ["v0.mp4"], encoder="encoder.safetensors")
    >>> round(sum(prediction.probabilities.values()), 3)
    1.0
    >>> len(prediction.frames()), int(prediction.segments()["frames"].sum())
    (12, 12)
    """
    trained = run if isinstance(run, Run) else read_run(find_run(run))
    path = encoder_file(encoder or trained.extraction_settings.encoder)
    degrees = str(rotation) if rotation else ""
    view = predict_stage.VideoView(degrees, region if isinstance(region, str) else " ".join(map(str, region)), fps)
    paths = [Path(video) for video in videos]
    names = read_person_names(Path(people)) if people else NO_NAMES
    network = Path(identity_network) if identity_network else None
    persons = predict_stage.PersonOptions(network, person_thresh, names)
    config = predict_stage.extract_config_of(trained, path, device, input)
    options = PredictOptions(trained, config, view, all_faces, calibration, persons)
    return predict_together(paths, options, workers or num_cores())


def _read_manifest(manifest: PathLike | Manifest, root: PathLike | None, labels: Sequence[str] | None) -> Manifest:
    if isinstance(manifest, Manifest):
        return manifest
    return read_manifest(Path(manifest), root=Path(root) if root else None, labels=labels, named_by_user=True)
