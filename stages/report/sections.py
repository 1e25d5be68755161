"""Figures and captions of each section of the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...cache.features import FeatureTable
from ..heads.calibration import FEW_VIDEOS, describe_calibration, reliability
from ..heads.comparison import EncoderRuns, encoder_folds, encoder_rows
from ..heads.registry import HEAD_TITLES
from ..heads.run_io import Run
from ..manifest.manifest import Manifest
from ..plots.charts import (
    accuracy_figure,
    confusion_figure,
    curves_figure,
    encoders_figure,
    extraction_figure,
    recall_figure,
    reliability_figure,
    subjects_figure,
    sweep_figure,
    tsne_figure,
)
from ..plots.strips import Filmstrip, filmstrip_figure, intensity_over_time
from . import tables
from .extraction_stats import ExtractionStats, extraction_stats
from .filmstrip import make_filmstrip, select_examples
from .sweep_results import sweep_slices
from .tsne import TSNE_HEADS, TSNEResult, compute_tsne
from .writer import ReportFigure, ReportWriter

MIN_SUBJECTS = 2
WIDE_FROM_SUBJECTS = 30
FLAT_MAP_RATIO = 1.15
"""Peak ratio of an activation map (see Filmstrip) below which it does not locate the emotion."""


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of. The first run is shown in detail, the others are compared with it.

    ``ablation``: runs of table 6; heads that are not among them are taken from ``runs``. ``sweep``: as read_sweep returns
    it. ``timing``: speed of the last extraction in words. ``missing``: a message for each input that does not exist.
    ``encoders``: the runs of several encoders, the main one first, else empty; ``not_compared``: a message for each run of
    another encoder that is left out there.
    """

    runs: tuple[Run, ...]
    manifest: Manifest
    table: FeatureTable | None = None
    ablation: tuple[Run, ...] = ()
    sweep: pd.DataFrame | None = None
    sweep_file: Path | None = None
    timing: str = ""
    missing: tuple[str, ...] = ()
    encoders: tuple[EncoderRuns, ...] = ()
    not_compared: tuple[str, ...] = ()

    @property
    def main(self) -> Run:
        return self.runs[0]

    @property
    def same_features(self) -> bool:
        """Whether the cache still has the features that the main run was trained on."""
        return self.table is not None and self.table.features_sha256 == self.main.config["features"]["sha256"]


def accuracy_section(inputs: ReportInputs, writer: ReportWriter) -> list[ReportFigure]:
    """Return accuracy by fold, and recall by label."""
    folds, recall = tables.fold_scores(inputs.runs), tables.recall_table(inputs.runs)
    by_fold = accuracy_figure(folds, tables.majority_baseline(inputs.main))
    caption = (
        "Accuracy by fold. Dots: one fold and seed each. Diamond: their mean; the line is one standard deviation (ddof 0) to "
        "each side. Dotted line: accuracy of always predicting the most common label."
    )
    recall_caption = "Recall by label: the fraction of a label's videos that is predicted correctly."
    return [
        writer.add_figure("accuracy_by_fold", by_fold, folds, caption),
        writer.add_figure("recall", recall_figure(recall), recall, recall_caption),
    ]


def encoders_section(inputs: ReportInputs, writer: ReportWriter) -> tuple[list[dict[str, Any]], ReportFigure] | None:
    """Return the heads on the features of each encoder, as encoder_rows has them; None if only one encoder has runs."""
    if not inputs.encoders:
        return None
    rows, folds = encoder_rows(inputs.encoders), encoder_folds(inputs.encoders)
    numbers = pd.json_normalize(rows, sep="_").drop(columns="title")
    writer.add_table("encoders", numbers.drop(columns="difference", errors="ignore"))
    first = inputs.encoders[0].encoder
    caption = (
        "Left: accuracy by encoder. Dots: one fold and seed each. Diamond: their mean; the line is one standard deviation "
        f"(ddof 0) to each side. Right: the difference to {first} with the same head, fold and seed; the line is one standard "
        "deviation of the differences (ddof 1)."
    )
    figure = encoders_figure(folds.assign(title=folds["head"].map(HEAD_TITLES)))
    return rows, writer.add_figure("encoders_by_fold", figure, folds, caption, wide=True)


def confusion_section(inputs: ReportInputs, writer: ReportWriter) -> list[ReportFigure]:
    """Return the confusion matrix of each run, the main one first."""
    figures = []
    stems = ["confusion"]
    for name, run in zip(tables.run_names(inputs.runs), inputs.runs, strict=True):
        counts = np.array(run.metrics["confusion"])
        numbers = pd.DataFrame(counts, columns=[*run.labels, "no prediction"])
        numbers.insert(0, "true", run.labels)
        unit = "videos" if run.metrics["seeds"] == 1 else f"predictions for {run.metrics['videos']} videos"
        caption = (
            f"{name}. Rows: true labels. Columns: predicted labels. Each cell has the percentage of its row and the number of "
            f"{unit}, summed over {run.describe_cv()}. n = {counts.sum()}."
        )
        stem = "confusion" if run is inputs.main else f"confusion_{run.path.name}"
        if run is not inputs.main and stem in stems:  # a run of the same head on the features of another encoder
            stem += f"_{len(stems)}"
        stems.append(stem)
        figures.append(writer.add_figure(stem, confusion_figure(counts, run.labels, name), numbers, caption))
    return figures


def calibration_section(inputs: ReportInputs, writer: ReportWriter) -> ReportFigure | None:
    """Return the reliability of the main run's confidence before and after calibration; None if it cannot be measured."""
    run = inputs.main
    values, bins = run.calibration, reliability(run.predictions(), run.labels)
    if values is None or bins.empty:
        return None
    few = int(((bins["n"] > 0) & (bins["n"] < FEW_VIDEOS)).sum())
    hollow = f" Hollow: the {few} bins of fewer than {FEW_VIDEOS} predictions, which say little." if few else ""
    what = describe_calibration(values)
    caption = (
        f"{what[:1].upper()}{what[1:]}. Dots: accuracy and mean confidence of the predictions of a bin; on the dashed line they "
        f"are equal, below it confidence is too high.{hollow} Bars: predictions by confidence. After: each of {values['parts']} "
        f"parts of the test at a temperature fitted to the others "
        f"({values['temperature_min']:.2f} to {values['temperature_max']:.2f})."
    )
    return writer.add_figure("reliability", reliability_figure(bins, FEW_VIDEOS), bins, caption)


def filmstrip_section(inputs: ReportInputs, writer: ReportWriter) -> list[ReportFigure]:
    """Return a filmstrip of a correct and a wrong prediction of every label; none if the head has no map."""
    if inputs.table is None:
        return []
    figures = []
    for _, row in select_examples(inputs.main).iterrows():
        if row.id not in inputs.table.index_of:
            continue
        strip = make_filmstrip(inputs.main, inputs.manifest, inputs.table, row)
        clips = pd.DataFrame(strip.clips, columns=["begin", "end", "intensity"])
        clips["kind"] = [f"clip {i + 1}" for i in clips.index]
        clips["is_located"] = clips.index == strip.located_index
        numbers = pd.concat([clips, intensity_over_time(strip.clips).assign(kind="over time")], ignore_index=True)
        name = f"filmstrip_{strip.label}_{'correct' if strip.correct else 'wrong'}"
        caption = _filmstrip_caption(strip, row, inputs.main)
        figures.append(writer.add_figure(name, filmstrip_figure(strip), numbers, caption, wide=True))
    return figures


def _filmstrip_caption(strip: Filmstrip, row: pd.Series, run: Run) -> str:
    begin, end, weight = strip.clips[strip.located_index]
    located = f"clip {strip.located_index + 1} of {len(strip.clips)}, {begin:.2f} to {end:.2f} s, {100 * weight:.0f} % of the map"
    parts = [f"Located: {located}."]
    if strip.peak_ratio < FLAT_MAP_RATIO:
        parts.append("The map is almost flat, so the location means little.")
    if strip.apex_hit is not None:
        parts.append(f"The located clip {'contains' if strip.apex_hit else 'misses'} the apex.")
    unit = "subject" if run.cv.fold_scheme == "subject" else "video"
    parts.append(f"Predicted by the model of fold {row.fold}, seed {row.seed}, which was not trained on this {unit}.")
    return " ".join(parts)


def tsne_section(inputs: ReportInputs, writer: ReportWriter) -> tuple[ReportFigure, TSNEResult] | None:
    """Return figure 7 of the runs of TSNE_HEADS, else of the main run; None without their features."""
    if inputs.table is None or not inputs.same_features:
        return None
    features_sha256 = inputs.table.features_sha256
    candidates = [run for run in inputs.runs if run.config["features"]["sha256"] == features_sha256]
    runs = [run for head in TSNE_HEADS for run in candidates if run.train_config.head == head]
    result = compute_tsne(runs or [inputs.main], inputs.manifest, inputs.table, int(inputs.main.cv.seed))
    if result is None:
        return None
    tooltips = {
        f"point-{i}": f"{point.id}\nlabel: {point.label}\npredicted: {point.predicted}\nfold: {point.fold}"
        for i, point in result.points.iterrows()
    }
    caption = "One marker per video. Color and shape: true label. Hollow: wrong prediction. Point at a marker to see its video."
    figure = tsne_figure(result.points, inputs.main.labels)
    return writer.add_figure("tsne", figure, result.points, caption, tooltips=tooltips), result


def sweep_section(inputs: ReportInputs, writer: ReportWriter) -> list[ReportFigure]:
    """Return figure 8: accuracy along each setting that the sweep varies."""
    if inputs.sweep is None:
        return []
    return [
        writer.add_figure(
            f"sweep_{part.axis}", sweep_figure(part.points, part.axis, part.axis_label), part.points, part.caption
        )
        for part in sweep_slices(inputs.sweep, inputs.main)
    ]


def training_section(inputs: ReportInputs, writer: ReportWriter) -> ReportFigure:
    """Return the learning curves of all runs."""
    curves = tables.learning_curves(inputs.runs)
    caption = (
        "Accuracy by epoch: mean over folds and seeds; the band is one standard deviation (ddof 0) to each side. The test curve "
        "is shown for information; selecting an epoch by it would be optimistic."
    )
    return writer.add_figure("learning_curves", curves_figure(curves), curves, caption)


def subjects_section(inputs: ReportInputs, writer: ReportWriter) -> ReportFigure | None:
    """Return the accuracy by subject of the main run; None for fewer than MIN_SUBJECTS subjects."""
    subjects = tables.subject_scores(inputs.main)
    if len(subjects) < MIN_SUBJECTS:
        return None
    low, high = int(subjects.videos.min()), int(subjects.videos.max())
    count = f"{low}" if low == high else f"{low} to {high}"
    caption = (
        f"Accuracy of {len(subjects)} subjects with {count} predictions each. Dashed line: their mean, "
        f"{100 * subjects.accuracy.mean():.1f} %. Orange: more than one standard deviation below the mean. With so few videos "
        "per subject, a single video changes a bar a lot."
    )
    figure = subjects_figure(subjects, tables.run_names(inputs.runs)[0])
    return writer.add_figure("subjects", figure, subjects, caption, wide=len(subjects) > WIDE_FROM_SUBJECTS)


def extraction_section(inputs: ReportInputs, writer: ReportWriter) -> tuple[ExtractionStats, ReportFigure] | None:
    """Return the statistics of the feature cache; None without one."""
    if inputs.table is None:
        return None
    stats = extraction_stats(inputs.manifest, inputs.table)
    caption = "Frames by where the face crop came from. The number of frames is in parentheses."
    figure = extraction_figure(stats.status_fractions)
    return stats, writer.add_figure("extraction", figure, stats.status_fractions, caption)
