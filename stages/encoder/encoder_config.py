"""Configuration of the encoder trained on synthetic faces."""

from __future__ import annotations

from pydantic import Field

from ..strict_model import StrictModel


class SyntheticEncoderConfig(StrictModel, frozen=True):
    """``actors:`` of configs/encoder.yaml."""

    num_images: int = Field(default=9600, ge=1)
    """Rendered faces to train on."""
    steps: int = Field(default=350, ge=1)
    batch_size: int = Field(default=64, ge=2)
    crop_size: int = Field(default=112, ge=32)
    """Side of the crops in pixels."""
    seed: int = 3456
