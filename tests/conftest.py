"""Shared fixtures: shapes checked at run time, small videos of real faces, an encoder with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest
from helpers.video import panning, write_video
from jaxtyping import install_import_hook

from ceflpipe.stages.manifest.manifest import Manifest, VideoEntry

# no test asserts a time, not even that of one example
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

# shapes and types written in the signatures of stage two are checked in every call the tests make
install_import_hook(
    [
        f"ceflpipe.stages.heads.{name}"
        for name in ("layers", "ceflnet", "baselines", "ceflnet_released", "losses", "clip_sampling")
    ],
    "beartype.beartype",
)


@pytest.fixture(scope="session")
def random_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder file with untrained weights: enough wherever the numbers themselves do not matter."""
    import torch

    from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    write_encoder(path, resnet18_backbone().state_dict(), "random", "imagenet", {"source": "untrained, for tests"})
    return path


@pytest.fixture(scope="session")
def photographs() -> dict[str, np.ndarray]:
    """Real photographs from installed packages: six people (insightface) and one astronaut (scikit-image), RGB."""
    import insightface
    import skimage.data

    six = cv2.imread(str(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"))
    return {"six": six[:, :, ::-1].copy(), "astronaut": skimage.data.astronaut()}


@pytest.fixture(scope="session")
def face_video(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, np.ndarray]) -> Path:
    """A short video of one real face that moves through the picture."""
    frames = panning(photographs["astronaut"], 24, (320, 320), (60, 0), (140, 30))
    return write_video(tmp_path_factory.mktemp("videos") / "astronaut.mp4", frames)


@pytest.fixture
def make_manifest(tmp_path: Path, face_video: Path) -> Callable[..., Manifest]:
    """A function that copies a video for each name and returns their manifest."""

    def make(*names: str) -> Manifest:
        for name in names:
            shutil.copy(face_video, tmp_path / f"{name}.mp4")
        return Manifest("x", tmp_path, tuple(VideoEntry(name, f"{name}.mp4", "fear") for name in names), ("fear",))

    return make
