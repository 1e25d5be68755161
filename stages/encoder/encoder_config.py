"""Configuration of the encoders trained here: on rendered faces, and on photographs."""

from __future__ import annotations

from typing import Literal

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


class PhotographEncoderConfig(StrictModel, frozen=True):
    """``photographs:`` of configs/encoder.yaml."""

    epochs: int = Field(default=20, ge=1)
    """An epoch is as many draws as there are training photographs."""
    batch_size: int = Field(default=64, ge=2)
    crop_size: int = Field(default=64, ge=32, le=224)
    """Side of the crops in pixels."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest of the one-cycle schedule."""
    weight_decay: float = Field(default=0.05, ge=0)
    label_balance: float = Field(default=0.4, ge=0, le=1)
    """A label of frequency f is drawn in proportion to f^(1 - balance). 0: photographs are drawn alike; 1: labels are."""
    joint: Literal["none", "actors"] = "none"
    """Train on rendered faces at the same time."""
    actor_images: int = Field(default=4800, ge=64)
    """Rendered faces of joint training."""
    actor_share: float = Field(default=0.25, gt=0, le=1)
    """Rendered faces of a batch, as a multiple of its photographs."""
    storage: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of the convolutions in the encoder file: 45, 22 or 11 MB."""
    checkpoint_minutes: float = Field(default=3.0, ge=0)
    seed: int = 3456
