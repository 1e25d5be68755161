"""Configuration of the synthetic demo set."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..strict_model import StrictModel

Length = Annotated[int, Field(ge=24)]


class DemoConfig(StrictModel, frozen=True):
    """``demo:`` of configs/demo.yaml."""

    subjects: int = Field(default=24, ge=1, le=9999)
    size: int = Field(default=256, ge=96, le=1024)
    """Side of the square frames in pixels."""
    num_frames: tuple[Length, Length] = (60, 100)
    """Shortest and longest video, in frames."""
    fps: int = Field(default=25, ge=1, le=120)
    seed: int = 3456
