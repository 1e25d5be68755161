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
from ..plots.strips import Strip, intensity_over_time, strip_figure
from ..plots.style import jpeg_uri
from . import tables as scores
from .extraction_stats import Seen, extraction_summary
from .face_crops import alignment_of, faces_at
from .filmstrip import choose_videos, make_strip
from .interactive import Plot, tsne_plot
from .sweep_results import AXES, along, base_of, clips_caption
from .tsne import HEADS, Picture, embed
from .writer import Drawn, Folder

FEWEST_FOR_SUBJECTS = 2
MOST_FACES = 400
FACE_SIDE = 72
FLAT = 1.15
"""A map whose highest share is below this many even shares says nothing of where the emotion is."""


@dataclass(frozen=True)
class Material:
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
    absent: tuple[str, ...] = ()

    @property
    def main(self) -> Run:
        return self.runs[0]

    @property
    def same_features(self) -> bool:
        """Whether the cache still holds what the main run was trained on."""
        return self.table is not None and self.table.identity == self.main.about["features"]["identity"]


def how_good(material: Material, folder: Folder) -> list[Drawn]:
    """Return accuracy by fold, and recall by label."""
    folds = scores.fold_scores(material.runs)
    caption = (
        "Each pale mark is a fold (and seed), the diamond their mean, the line one deviation (ddof 0) to each side."
    )
    by_fold = folder.draw("scores_by_fold", scores_figure(folds, scores.guessing(material.main)), folds, caption)
    recall = scores.recall_table(material.runs)
    caption = "Recall by label: the share of a label's videos that was recognised."
    return [by_fold, folder.draw("recall", recall_figure(recall), recall, caption)]


def confused(material: Material, folder: Folder) -> list[Drawn]:
    """Return the confusion matrix of each run, the main one first."""
    drawn = []
    for name, run in zip(scores.names_of(material.runs), material.runs, strict=True):
        counts = np.array(run.metrics["confusion"])
        numbers = pd.DataFrame(counts, columns=[*run.labels, "no prediction"])
        numbers.insert(0, "true", run.labels)
        judged = "videos" if run.metrics["seeds"] == 1 else f"judgements of {run.metrics['videos']} videos"
        caption = (
            f"{name}: rows are true labels; percent of the row, and {judged}, summed over {scores.scheme_of(run)}. "
            f"n = {counts.sum()}."
        )
        stem = "confusion" if run is material.main else f"confusion_{run.path.name}"
        drawn.append(folder.draw(stem, confusion_figure(counts, run.labels, name), numbers, caption))
    return drawn


def strips(material: Material, folder: Folder) -> list[Drawn]:
    """Return a film strip of a right and a wrong prediction of every label; none where the head has no map."""
    table = material.table
    if table is None:
        return []
    drawn = []
    for _, line in choose_videos(material.main).iterrows():
        if line.id not in table.row_of:
            continue
        strip = make_strip(material.main, material.manifest, table, line)
        numbers = intensity_over_time(strip.clips).assign(kind="over time")
        begins, ends, shares = zip(*strip.clips, strict=True)
        clips = pd.DataFrame(
            {"begin": begins, "end": ends, "intensity": shares, "kind": [f"clip {i + 1}" for i in range(len(shares))]}
        )
        clips["located"] = [i == strip.located for i in range(len(shares))]
        name = f"strip_{strip.label}_{'right' if strip.right else 'wrong'}"
        figure = strip_figure(strip)
        drawn.append(
            folder.draw(
                name,
                figure,
                pd.concat([clips, numbers], ignore_index=True),
                _strip_caption(strip, line, material.main),
                wide=True,
            )
        )
    return drawn


def _strip_caption(strip: Strip, line: pd.Series, run: Run) -> str:
    begin, end, share = strip.clips[strip.located]
    words = [
        f"Located: clip {strip.located + 1} of {len(strip.clips)}, {begin:.2f} to {end:.2f} s, "
        f"{100 * share:.0f} % of the map"
    ]
    if strip.contrast < FLAT:
        words.append("a nearly flat map, so the place means little")
    if strip.holds_apex is not None:
        words.append("it holds the apex" if strip.holds_apex else "it misses the apex")
    unseen = "this subject" if run.about["protocol"]["scheme"] == "subject" else "this video"
    return "; ".join(words) + f". Judged in fold {line.fold} by a model that never saw {unseen}."


def representations(material: Material, folder: Folder) -> tuple[Drawn, Plot, Picture] | None:
    """Return figure 7, to look at and to point at; None where the features are not those the runs were trained on."""
    if material.table is None or not material.same_features:
        return None
    identity = material.table.identity
    runs = [
        run
        for head in HEADS
        for run in material.runs
        if run.recipe.head == head and run.about["features"]["identity"] == identity
    ]
    runs = runs or [material.main]
    picture = embed(runs, material.manifest, material.table, int(material.main.about["protocol"]["seeds"][0]))
    if picture is None:
        return None
    figure = scatter_figure(picture.points, material.main.labels)
    caption = "A mark per video, colour and shape its true label; hollow marks were predicted wrongly."
    drawn = folder.draw("tsne", figure, picture.points, caption)
    faces = _faces_of(material, material.table, picture.points["id"].drop_duplicates().tolist())
    return drawn, tsne_plot(picture, material.main.labels, faces), picture


def _faces_of(material: Material, table: FeatureTable, videos: Sequence[str]) -> dict[str, str]:
    """Return a small picture per video from the middle of its located clip, or of the video where there is no map."""
    if len(videos) > MOST_FACES:
        return {}
    lines = material.main.predictions().drop_duplicates("id").set_index("id")
    rows = {row.id: row for row in material.manifest.rows}
    located = lines["located"].dropna().to_dict() if "located" in lines else {}
    faces = {}
    for video in videos:
        place, frames, row = table.row_of[video], table.frames_of(video), rows[video]
        moment = 0.5
        if video in located:
            moment = (int(located[video]) - 0.5) / material.main.recipe.clips
        frame = min(int(table.index.length[place]) - 1, int(moment * int(table.index.length[place])))
        (face,) = faces_at(
            material.manifest.file_of(row),
            [frame],
            table.landmarks[frames],
            table.box[frames],
            align=alignment_of(table),
            side=FACE_SIDE,
            rotation=row.rotation,
            region=row.region,
        )
        if face is not None:
            faces[video] = jpeg_uri(face, 75)
    return faces


def settings(material: Material, folder: Folder) -> list[Drawn]:
    """Return figure 8: accuracy along each setting that was swept."""
    sweep = material.sweep
    if sweep is None:
        return []
    drawn = []
    for axis, said in AXES.items():
        points = along(sweep, axis, material.main)
        if len(points):
            caption = (
                f"Accuracy by {said}, with {base_of(sweep, axis, material.main)}; bars are one deviation over "
                f"{points['n'].max()} folds and seeds."
            )
            if axis == "clips":
                caption = f"{caption} {clips_caption(points)}"
            drawn.append(folder.draw(f"sweep_{axis}", sweep_figure(points, axis, said), points, caption))
    return drawn


def training(material: Material, folder: Folder) -> Drawn:
    curves = scores.learning_curves(material.runs)
    caption = (
        "Mean over folds and seeds, the band one deviation (ddof 0) to each side. The test curve is for looking at, "
        "not for choosing an epoch."
    )
    return folder.draw("learning_curves", curves_figure(curves), curves, caption)


def subjects(material: Material, folder: Folder) -> Drawn | None:
    found = scores.subject_scores(material.main)
    if len(found) < FEWEST_FOR_SUBJECTS:
        return None
    fewest, most = int(found.videos.min()), int(found.videos.max())
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    caption = (
        f"{len(found)} subjects with {each} judged videos each; dashed: their mean, "
        f"{100 * found.accuracy.mean():.1f} %. "
        "Orange: more than one deviation below it. With so few videos each, a single one moves a column far."
    )
    name = scores.names_of(material.runs)[0]
    return folder.draw("subjects", subjects_figure(found, name), found, caption, wide=len(found) > 30)


def stage_one(material: Material, folder: Folder) -> tuple[Seen, Drawn] | None:
    if material.table is None:
        return None
    seen = extraction_summary(material.manifest, material.table)
    caption = "Where the crop of each frame came from; in brackets the number of frames."
    return seen, folder.draw("extraction", extraction_figure(seen.shares), seen.shares, caption)
