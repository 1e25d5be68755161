"""What goes into each section of the page: its figures, drawn from the runs, and the words and tables beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...cache.features import FeatureTable
from ..heads.run_io import Run
from ..manifest.manifest import Manifest
from ..plots.charts import (
    confusion_figure,
    curves_figure,
    extraction_figure,
    recall_figure,
    scatter_figure,
    scores_figure,
    subjects_figure,
    sweep_figure,
)
from ..plots.strips import Filmstrip, filmstrip_figure, intensity_over_time
from ..plots.style import jpeg_uri
from . import tables as scores
from .extraction_stats import ExtractionStats, extraction_stats
from .face_crops import alignment_of, read_face_crops
from .filmstrip import make_filmstrip, select_examples
from .interactive import Plot, tsne_plot
from .sweep_results import SWEEP_AXES, clips_caption, describe_fixed, slice_along
from .tsne import TSNE_HEADS, TSNEResult, compute_tsne
from .writer import ReportFigure, ReportWriter

MIN_SUBJECTS = 2
MAX_FACES = 400
THUMBNAIL_SIZE = 72
FLAT_MAP_RATIO = 1.15
"""A map whose highest share is below this many even shares says nothing of where the emotion is."""


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report is made of. The first run is looked at closely, the others stand beside it.

    ``ablation``: runs of table 6; for rows without one those of ``runs`` serve. ``sweep``: see sweep.py. ``timing``:
    what the last run of stage one took, for the summary. ``absent``: what was asked for and is not there, in words."""

    runs: tuple[Run, ...]
    manifest: Manifest
    table: FeatureTable | None = None
    ablation: tuple[Run, ...] = ()
    sweep: pd.DataFrame | None = None
    sweep_file: Path | None = None
    timing: str = ""
    missing: tuple[str, ...] = ()

    @property
    def main(self) -> Run:
        return self.runs[0]

    @property
    def same_features(self) -> bool:
        """Whether the cache still holds what the main run was trained on."""
        return self.table is not None and self.table.identity == self.main.config["features"]["identity"]


def accuracy_figures(material: ReportInputs, folder: ReportWriter) -> list[ReportFigure]:
    """Return accuracy by fold, and recall by label."""
    folds = scores.fold_scores(material.runs)
    caption = (
        "Each pale mark is a fold (and seed), the diamond their mean, the line one deviation (ddof 0) to each side."
    )
    by_fold = folder.add_figure(
        "scores_by_fold", scores_figure(folds, scores.majority_baseline(material.main)), folds, caption
    )
    recall = scores.recall_table(material.runs)
    caption = "Recall by label: the share of a label's videos that was recognised."
    return [by_fold, folder.add_figure("recall", recall_figure(recall), recall, caption)]


def confusion_figures(material: ReportInputs, folder: ReportWriter) -> list[ReportFigure]:
    """Return the confusion matrix of each run, the main one first."""
    drawn = []
    for name, run in zip(scores.run_names(material.runs), material.runs, strict=True):
        counts = np.array(run.metrics["confusion"])
        numbers = pd.DataFrame(counts, columns=[*run.labels, "no prediction"])
        numbers.insert(0, "true", run.labels)
        judged = "videos" if run.metrics["seeds"] == 1 else f"judgements of {run.metrics['videos']} videos"
        caption = (
            f"{name}: rows are true labels; percent of the row, and {judged}, summed over {run.describe_cv()}. "
            f"n = {counts.sum()}."
        )
        stem = "confusion" if run is material.main else f"confusion_{run.path.name}"
        drawn.append(folder.add_figure(stem, confusion_figure(counts, run.labels, name), numbers, caption))
    return drawn


def filmstrips(material: ReportInputs, folder: ReportWriter) -> list[ReportFigure]:
    """Return a film strip of a right and a wrong prediction of every label; none where the head has no map."""
    table = material.table
    if table is None:
        return []
    drawn = []
    for _, line in select_examples(material.main).iterrows():
        if line.id not in table.index_of:
            continue
        strip = make_filmstrip(material.main, material.manifest, table, line)
        numbers = intensity_over_time(strip.clips).assign(kind="over time")
        begins, ends, shares = zip(*strip.clips, strict=True)
        clips = pd.DataFrame(
            {"begin": begins, "end": ends, "intensity": shares, "kind": [f"clip {i + 1}" for i in range(len(shares))]}
        )
        clips["located"] = [i == strip.located for i in range(len(shares))]
        name = f"strip_{strip.label}_{'right' if strip.correct else 'wrong'}"
        figure = filmstrip_figure(strip)
        drawn.append(
            folder.add_figure(
                name,
                figure,
                pd.concat([clips, numbers], ignore_index=True),
                _strip_caption(strip, line, material.main),
                wide=True,
            )
        )
    return drawn


def _strip_caption(strip: Filmstrip, line: pd.Series, run: Run) -> str:
    begin, end, share = strip.clips[strip.located]
    words = [
        f"Located: clip {strip.located + 1} of {len(strip.clips)}, {begin:.2f} to {end:.2f} s, "
        f"{100 * share:.0f} % of the map"
    ]
    if strip.peak_ratio < FLAT_MAP_RATIO:
        words.append("a nearly flat map, so the place means little")
    if strip.apex_hit is not None:
        words.append("it holds the apex" if strip.apex_hit else "it misses the apex")
    unseen = "this subject" if run.cv.fold_scheme == "subject" else "this video"
    return "; ".join(words) + f". Judged in fold {line.fold} by a model that never saw {unseen}."


def tsne_figure(material: ReportInputs, folder: ReportWriter) -> tuple[ReportFigure, Plot, TSNEResult] | None:
    """Return figure 7, to look at and to point at; None where the features are not those the runs were trained on."""
    if material.table is None or not material.same_features:
        return None
    identity = material.table.identity
    runs = [
        run
        for head in TSNE_HEADS
        for run in material.runs
        if run.train_config.head == head and run.config["features"]["identity"] == identity
    ]
    runs = runs or [material.main]
    picture = compute_tsne(runs, material.manifest, material.table, int(material.main.cv.seed))
    if picture is None:
        return None
    figure = scatter_figure(picture.points, material.main.labels)
    caption = "A mark per video, colour and shape its true label; hollow marks were predicted wrongly."
    drawn = folder.add_figure("tsne", figure, picture.points, caption)
    faces = _faces_of(material, material.table, picture.points["id"].drop_duplicates().tolist())
    return drawn, tsne_plot(picture, material.main.labels, faces), picture


def _faces_of(material: ReportInputs, table: FeatureTable, videos: Sequence[str]) -> dict[str, str]:
    """Return a small picture per video from the middle of its located clip, or of the video where there is no map."""
    if len(videos) > MAX_FACES:
        return {}
    lines = material.main.predictions().drop_duplicates("id").set_index("id")
    rows = {row.id: row for row in material.manifest.entries}
    located = lines["located_clip"].dropna().to_dict() if "located_clip" in lines else {}
    faces = {}
    for video in videos:
        place, frames, row = table.index_of[video], table.rows(video), rows[video]
        moment = 0.5
        if video in located:
            moment = (int(located[video]) - 0.5) / material.main.train_config.num_clips
        frame = min(int(table.videos.length[place]) - 1, int(moment * int(table.videos.length[place])))
        (face,) = read_face_crops(
            material.manifest.video_path(row),
            [frame],
            table.landmarks[frames],
            table.box[frames],
            align=alignment_of(table),
            side=THUMBNAIL_SIZE,
            rotation=row.rotation,
            region=row.region,
        )
        if face is not None:
            faces[video] = jpeg_uri(face, 75)
    return faces


def sweep_figures(material: ReportInputs, folder: ReportWriter) -> list[ReportFigure]:
    """Return figure 8: accuracy along each setting that was swept."""
    sweep = material.sweep
    if sweep is None:
        return []
    drawn = []
    for axis, said in SWEEP_AXES.items():
        points = slice_along(sweep, axis, material.main)
        if len(points):
            caption = (
                f"Accuracy by {said}, with {describe_fixed(sweep, axis, material.main)}; bars are one deviation over "
                f"{points['n'].max()} folds and seeds."
            )
            if axis == "clips":
                caption = f"{caption} {clips_caption(points)}"
            drawn.append(folder.add_figure(f"sweep_{axis}", sweep_figure(points, axis, said), points, caption))
    return drawn


def learning_curves_figure(material: ReportInputs, folder: ReportWriter) -> ReportFigure:
    curves = scores.learning_curves(material.runs)
    caption = (
        "Mean over folds and seeds, the band one deviation (ddof 0) to each side. The test curve is for looking at, "
        "not for choosing an epoch."
    )
    return folder.add_figure("learning_curves", curves_figure(curves), curves, caption)


def subjects_section(material: ReportInputs, folder: ReportWriter) -> ReportFigure | None:
    found = scores.subject_scores(material.main)
    if len(found) < MIN_SUBJECTS:
        return None
    fewest, most = int(found.videos.min()), int(found.videos.max())
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    caption = (
        f"{len(found)} subjects with {each} judged videos each; dashed: their mean, "
        f"{100 * found.accuracy.mean():.1f} %. "
        "Orange: more than one deviation below it. With so few videos each, a single one moves a column far."
    )
    name = scores.run_names(material.runs)[0]
    return folder.add_figure("subjects", subjects_figure(found, name), found, caption, wide=len(found) > 30)


def extraction_section(material: ReportInputs, folder: ReportWriter) -> tuple[ExtractionStats, ReportFigure] | None:
    if material.table is None:
        return None
    seen = extraction_stats(material.manifest, material.table)
    caption = "Where the crop of each frame came from; in brackets the number of frames."
    return seen, folder.add_figure(
        "extraction", extraction_figure(seen.status_fractions), seen.status_fractions, caption
    )
