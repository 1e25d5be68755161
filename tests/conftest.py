"""What do many tests need? Shapes checked at run time, small videos of real faces, an encoder that needs no training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import install_import_hook

# shapes and types written in the signatures of stage two are checked in every call the tests make
install_import_hook(
    [f"ceflpipe.stages.heads.{name}" for name in ("layers", "cefl", "baselines", "released", "losses", "sampling")],
    "beartype.beartype",
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def random_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder file with untrained weights: enough wherever the numbers themselves do not matter."""
    import torch

    from ceflpipe.stages.encoder.weights import bare_resnet18, write_encoder

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    write_encoder(path, bare_resnet18().state_dict(), "random", "imagenet", {"source": "untrained, for tests"})
    return path


@pytest.fixture(scope="session")
def photographs() -> dict[str, np.ndarray]:
    """Real photographs from installed packages: six people (insightface) and one astronaut (scikit-image), RGB."""
    import insightface
    import skimage.data

    six = cv2.imread(str(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"))
    return {"six": six[:, :, ::-1].copy(), "astronaut": skimage.data.astronaut()}


def write_video(path: Path, frames: list[np.ndarray], fps: float = 25.0, codec: str = "mp4v") -> Path:
    """Write RGB frames with OpenCV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def panning(picture: np.ndarray, count: int, size: tuple[int, int], begin: tuple[int, int], end: tuple[int, int]) -> list[np.ndarray]:
    """Cut ``count`` windows of (width, height) out of a picture, gliding from one corner position to another."""
    width, height = size
    places = np.linspace(begin, end, count).round().astype(int)
    return [picture[y : y + height, x : x + width].copy() for x, y in places]


@pytest.fixture(scope="session")
def face_video(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, np.ndarray]) -> Path:
    """A short video of one real face that moves through the picture."""
    frames = panning(photographs["astronaut"], 24, (320, 320), (60, 0), (140, 30))
    return write_video(tmp_path_factory.mktemp("videos") / "astronaut.mp4", frames)


def run_cli(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, check: bool = False) -> subprocess.CompletedProcess:
    """Run ceflpipe as a user does: another process, this Python."""
    return subprocess.run(
        [sys.executable, "-m", "ceflpipe.pipeline", *map(str, arguments)],
        cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=check, timeout=600,
    )  # fmt: skip
