"""ceflpipe predict: the expression of any video, over its time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...cache.errors import CeflError
from ..config import load_pipeline
from ..console import Bar, progress, say, show, show_json, show_table
from .options import json_option, quiet_option

if TYPE_CHECKING:
    from ...stages.heads.run_io import Run
    from ...stages.predict.inference import Prediction
    from ...stages.predict.predict import Watched

MOST_STRETCHES = 24
BLOCKS = 30
"""Characters of the longest bar."""


@click.command(
    name="predict",
    epilog="Examples: ceflpipe predict holiday.mp4; ceflpipe predict films/ --run runs/cefl --out seen --render",
    short_help="Say the expression of any video file, and where in it.",
)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--run", "run_path", type=click.Path(path_type=Path), help="Run folder; default: artifacts/runs/DATASET/cefl."
)
@click.option(
    "--faces",
    type=click.Choice(["main", "all"]),
    default="main",
    show_default=True,
    help="The main face, or each person followed.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for a timeline picture, its numbers and a JSON per video."
)
@click.option(
    "--render",
    is_flag=True,
    help="Also write each video with box, landmarks, label and intensity drawn in; needs --out.",
)
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(path_type=Path),
    help="A CSV of all videos; default with --out: predictions.csv in it.",
)
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Encoder weights; default: the ones the run was trained with."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@json_option
@quiet_option
def command(
    videos: tuple[Path, ...], run_path: Path | None, faces: str, out: Path | None, render: bool, csv_path: Path | None,
    weights: Path | None, device: str, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Predict the expression in videos: files, folders of them, or patterns in quotes.

    Faces are found and encoded exactly as in stage one; all folds of the run vote. A video of up to 105 frames is
    judged as a whole, as in the run's own test; a longer one in windows of 105 frames that begin every 35 frames, and
    its label is the mean over them. Memory holds no pictures, so films are fine. With --faces all a person who is lost
    for more than 12 frames and comes back counts as somebody new.

    Exits with 1 when one of several videos could not be read or holds no face, with 2 when the only one could not.
    """
    from ...stages.extract.video_reader import CannotDecode, open_video
    from ...stages.heads.run_io import read_run
    from ...stages.manifest.files import videos_meant
    from ...stages.predict.predict import watch, wishes_of
    from ..paths import run_encoder_file, run_folder

    if render and not out:
        raise CeflError("--render needs a folder to write to: give --out too")
    run = read_run(run_path or run_folder(load_pipeline().dataset, "cefl"))
    meant = videos_meant(videos)
    wishes = wishes_of(run, weights or run_encoder_file(run), device)

    def frames_of(path: Path) -> int:
        try:
            return max(0, open_video(path).declared)
        except CannotDecode:
            return 0

    if not quiet and len(meant) == 1 and (count := frames_of(meant[0])) > 105:
        say(f"{meant[0].name}: about {count} frames, judged in windows of 105, 35 apart")
    total = (1 + render) * sum(map(frames_of, meant))
    writer = _Writer(run, meant, out, render) if out else None
    predictions: list[Prediction] = []
    with progress("watching", total, quiet=quiet) as bar:
        bar(0, meant[0].name)
        said = watch(run, meant, wishes, everyone=faces == "all", on_frames=bar)
        for number, (path, watched) in enumerate(zip(meant, said, strict=True), start=1):
            predictions += [prediction for prediction, _ in watched]
            if writer:
                writer.write(path, watched, bar)
            bar(0, meant[min(number, len(meant) - 1)].name)
    _write_csv(csv_path or (out / "predictions.csv" if out else None), predictions, run)
    if as_json:
        from ...stages.predict.outputs import record_of

        show_json([record_of(prediction, run.labels) for prediction in predictions])
    else:
        _show(predictions, run.labels)
        if not quiet:
            drawn = (
                "; rendered actors are all it has ever seen, so it can say little of real faces"
                if run.about["dataset"] == "demo"
                else ""
            )
            say(
                f"by {run.path}: {len(run.about['models'])} models of {run.recipe.head}, "
                f"trained on {run.about['dataset']}{drawn}"
            )
    if all(p.failure for p in predictions) and len(predictions) == 1:
        raise CeflError(f"{predictions[0].path}: {predictions[0].failure}")
    if not as_json and (out or csv_path):
        show(str(out or csv_path))
    raise click.exceptions.Exit(1 if any(p.failure for p in predictions) else 0)


class _Writer:
    """Puts each video's files into the folder as soon as it has been judged."""

    def __init__(self, run: Run, videos: Sequence[Path], out: Path, render: bool) -> None:
        import json

        from ...stages.predict.outputs import file_names

        out.mkdir(parents=True, exist_ok=True)
        self._out, self._render, self._labels, self._names = out, render, run.labels, file_names(videos)
        self._align = json.loads(run.about["features"]["settings"])["align"]

    def write(self, path: Path, watched: Sequence[Watched], bar: Bar) -> None:
        from ...stages.predict.outputs import write_timelines

        name = self._names[path]
        write_timelines(self._out, name, watched, self._labels, self._align)
        if self._render and any(not prediction.failure for prediction, _ in watched):
            from ...stages.predict.overlay import render_video

            bar(0, f"drawing {path.name}")
            render_video(path, watched, self._labels, self._out / f"{name}.mp4", bar)


def _write_csv(path: Path | None, predictions: Sequence[Prediction], run: Run) -> None:
    if path:
        from ...cache.atomic import write_text
        from ...stages.predict.outputs import lines_of

        write_text(path, lines_of(predictions, run.labels).to_csv(index=False))


def _show(predictions: Sequence[Prediction], labels: Sequence[str]) -> None:
    several = any(p.person for p in predictions)
    rows = []
    for p in predictions:
        ranked = sorted(p.probabilities.items(), key=lambda item: -item[1])
        sure = f"{100 * ranked[0][1]:.1f}" if ranked else "—"
        then = f"{ranked[1][0]} {100 * ranked[1][1]:.1f} %" if len(ranked) > 1 else "—"
        located = f"{p.located[0]:.2f}–{p.located[1]:.2f} s" if p.located else "—"
        person = [str(p.person or "—"), f"{p.begin:.1f}–{p.end:.1f} s"] if several else []
        rows.append([p.path.name, *person, p.label or "—", sure, then, located, f"{p.frames_with_face}/{p.frames}"])
    columns = [
        "video",
        *(["person", "there"] if several else []),
        "expression",
        "sure %",
        "next",
        "located clip",
        "face in frames",
    ]
    show_table(columns, rows)
    for p in predictions:
        if p.failure:
            show(f"{p.path}: {p.failure}")
    if len(predictions) == 1 and not predictions[0].failure:
        _show_over_time(predictions[0], labels)


def _show_over_time(p: Prediction, labels: Sequence[str]) -> None:
    from ...stages.predict.outputs import stretches

    if len(p.windows) == 1:
        if not p.intensity:
            return
        show(f"intensity of {p.label}, the share of each clip")
        highest = max(share for _, _, share in p.intensity)
        for begin, end, share in p.intensity:
            show(f"  {begin:6.2f}–{end:6.2f} s  {100 * share:5.1f} %  {'█' * round(BLOCKS * share / highest)}")
        return
    said = stretches(p, labels)
    show(f"{p.rule}; the leading label over time")
    wide = max((len(label) for label in labels), default=0)
    for one in said[:MOST_STRETCHES]:
        show(
            f"  {one['begin']:8.2f}–{one['end']:8.2f} s  {one['label']:<{wide}}  {100 * one['probability']:5.1f} %  "
            f"{'█' * round(BLOCKS * one['probability'])}"
        )
    if len(said) > MOST_STRETCHES:
        show(f"  … and {len(said) - MOST_STRETCHES} more; all of them with --out or --json")
