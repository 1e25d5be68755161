"""Configuration of the encoders trained here: on rendered faces, on photographs, and on the folds of a data set."""

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


class AdaptConfig(StrictModel, frozen=True):
    """``adapt:`` of configs/encoder.yaml: how an encoder is fine-tuned on the training videos of a fold."""

    layers: Literal["last", "all"] = "last"
    """``last``: the last two residual blocks (layer4), the others are computed once for all folds; ``all``: everything."""
    epochs: int = Field(default=30, ge=1)
    """At most; an epoch draws each training video once."""
    stopping_epochs: int = Field(default=6, ge=1)
    """Epochs without a lower validation loss after which training stops; the best one is kept."""
    frames_per_video: int = Field(default=16, ge=1)
    """Frames with a face, spread evenly over a video, that are used of it."""
    frames_per_step: int = Field(default=4, ge=1)
    """Frames of a video that are drawn at a time; the mean of their features has the label of the video."""
    variants: int = Field(default=4, ge=1)
    """Images of a frame: itself, and randomly moved, mirrored and lit ones."""
    batch_size: int = Field(default=16, ge=1)
    """Videos per step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Highest of the one-cycle schedule."""
    weight_decay: float = Field(default=0.05, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    validation_parts: int = Field(default=8, ge=2)
    """Parts into which the subjects of a fold's training videos are split; one of them says when to stop."""
    checkpoint_minutes: float = Field(default=3.0, ge=0)
    seed: int = 3456
