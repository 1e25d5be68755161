"""Configuration of stage two: how heads are trained (TrainConfig) and how they are scored (CVConfig).

params.yaml lists every key with the default that these classes have.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..strict_model import StrictModel

LongVideos = Literal["first", "center", "resample"]
"""Frames of a video of more than 105 that fill its slots: the first 105, the central 105, or evenly spread ones."""
TestView = Literal["middle", "end"]
"""Slots that the clips cover in testing: from the middle start of training on (slot 15 of 105 for 7 clips), or up to the
last slot (from slot 30 on for 7 clips), for videos that end at the apex."""
FoldScheme = Literal["subject", "stratified", "official", "split"]
FOLD_SCHEMES: dict[FoldScheme, str] = {
    "subject": "subject-wise folds",
    "stratified": "stratified folds (subjects are shared between train and test)",
    "official": "official folds",
    "split": "split, train -> val",
}
"""Titles of the fold schemes of folds.make_folds."""
TunedSetting = Literal["learning_rate", "weight_decay", "epochs"]
TUNED_SETTINGS: tuple[TunedSetting, ...] = ("learning_rate", "weight_decay", "epochs")
"""Settings of TrainConfig that can be chosen for each fold and seed, see tuning.py."""
LearningRate = Annotated[float, Field(gt=0)]
WeightDecay = Annotated[float, Field(ge=0)]


class TrainConfig(StrictModel, frozen=True):
    """Everything that decides how a head is trained, besides the data: ``train:`` of params.yaml and of a data set.

    Defaults are those of the paper's Table 1 if it gives a value, else of the released code.
    """

    head: str = "cefl"
    """Name in the registry of heads."""
    loss: Literal["auto", "bce", "cross-entropy"] = "auto"
    """``auto``: the head's own loss. ``bce`` is equation 11."""
    num_clips: int = Field(default=7, ge=1)
    """Clips per video, 1 to 10."""
    frames_per_clip: int = Field(default=5, ge=1, le=15)
    """Frames sampled from the 15 slots of each clip."""
    long_videos: LongVideos = "first"
    test_view: TestView = "middle"
    epochs: int = Field(default=120, ge=0)
    warmup_epochs: int = Field(default=10, ge=0)
    """Epochs of linear warm-up."""
    cosine_t_max: int = Field(default=160, ge=1)
    """T_max of the cosine schedule in epochs; Table 1 calls it maximum number of iterations."""
    learning_rate: LearningRate = 1e-4
    weight_decay: WeightDecay = 1e-4
    batch_size: int = Field(default=8, ge=1)
    """Videos per step and model."""
    class_weights: bool = False
    """Weight each label's loss so that all labels count the same."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 if the device computes it natively, else fp32; a run records which."""
    deterministic: bool = False
    """Take only algorithms that give the same bytes every time, which on a GPU are slower; on processors all are of this kind."""


class CVConfig(StrictModel, frozen=True):
    """How heads are cross-validated: ``cv:`` of params.yaml and of a data set."""

    fold_scheme: FoldScheme = "subject"
    """See folds.make_folds."""
    folds: int = Field(default=10, ge=2)
    """Number of folds of the schemes ``subject`` and ``stratified``."""
    seed: int = 3456
    """First seed."""
    num_seeds: int = Field(default=1, ge=1)
    """Seeds, counted up from ``seed``; each trains every fold."""
    checkpoint: Literal["last", "best-test"] = "last"
    """Epoch to keep. ``best-test`` is selected by the test score and therefore optimistic."""
    tta_views: int = Field(default=1, ge=1)
    """Test-time views (start slots) whose probabilities are averaged."""
    allow_leaks: bool = False
    """Score although a video or a person is in the training and the test set under two names; the run says so."""
    tune: tuple[TunedSetting, ...] = ()
    """Settings that are chosen for each fold and seed on held-out videos of its training set (tuning.py); () for none."""
    tune_learning_rates: tuple[LearningRate, ...] = Field(default=(1e-4, 3e-4, 1e-3, 3e-3), min_length=1)
    """Learning rates to choose from."""
    tune_weight_decays: tuple[WeightDecay, ...] = Field(default=(1e-5, 1e-4, 1e-3), min_length=1)
    """Weight decays to choose from."""
    tune_folds: int = Field(default=5, ge=2)
    """Parts into which the training videos of a fold are divided; one is held out."""
    tune_splits: int = Field(default=1, ge=1)
    """Parts that are held out in turn, at most ``tune_folds``; each trains every candidate once."""

    @model_validator(mode="after")
    def _check_tuning(self) -> Self:
        if self.tune_splits > self.tune_folds:
            raise ValueError(f"tune_splits {self.tune_splits} is more than the tune_folds {self.tune_folds} there are")
        for name in ("tune", "tune_learning_rates", "tune_weight_decays"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} lists a value twice")
        return self

    def describe(self, folds: int | None = None) -> str:
        """Return folds and seeds in words, e.g. '10 subject-wise folds, 3 seeds'; ``folds`` overrides their number."""
        count = 1 if self.fold_scheme == "split" else folds or self.folds
        return f"{count} {FOLD_SCHEMES[self.fold_scheme]}, {self.num_seeds} seed{'s' * (self.num_seeds > 1)}"

    def without_tuning(self) -> CVConfig:
        """Return this with nothing tuned, and the defaults for what tuning chooses from."""
        defaults = CVConfig().model_dump(include={name for name in CVConfig.model_fields if name.startswith("tune")})
        return self.model_copy(update=defaults)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.num_seeds))
