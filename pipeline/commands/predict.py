"""ceflpipe predict: the expression of any video."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ...cache.errors import CeflError
from ..config import load_pipeline
from ..console import progress, say, show, show_json, show_table
from .options import json_option, quiet_option


@click.command(
    name="predict",
    epilog="Example: ceflpipe predict holiday.mp4 --run artifacts/runs/demo/cefl",
    short_help="Say the expression of any video file, and where in it.",
)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--run", "run_path", type=click.Path(path_type=Path), help="Run folder; default: artifacts/runs/DATASET/cefl.")
@click.option("--weights", type=click.Path(path_type=Path), help="Encoder weights; default: the ones the run was trained with.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@json_option
@quiet_option
def command(
    videos: tuple[Path, ...], run_path: Path | None, weights: Path | None, device: str, as_json: bool, quiet: bool
) -> None:
    """Predict the expression of video files: probabilities, the located clip in seconds, intensity over time.

    Faces are found and encoded exactly as in stage one; all folds of the run vote. Exits with 1 when a video could not
    be read or holds no face.
    """
    from ...stages.heads.runfolder import read_run
    from ..places import run_folder
    from ..predict import predict

    run = read_run(run_path or run_folder(load_pipeline().dataset, "cefl"))
    predictions = []
    with progress("watching", len(videos), quiet=quiet) as bar:
        for prediction in predict(run, list(videos), weights=weights, device=device):
            predictions.append(prediction)
            bar(1, prediction.path.name)
    if as_json:
        show_json([{**asdict(p), "path": str(p.path)} for p in predictions])
    else:
        _show(predictions, run.labels)
        if not quiet:
            say(f"by {run.path}: {len(run.about['models'])} models of {run.recipe.head}, trained on {run.about['dataset']}")
    if not any(not p.failure for p in predictions) and len(predictions) == 1:
        raise CeflError(f"{predictions[0].path}: {predictions[0].failure}")
    raise click.exceptions.Exit(1 if any(p.failure for p in predictions) else 0)


def _show(predictions, labels) -> None:  # noqa: ANN001 - Predictions and words
    rows = []
    for p in predictions:
        located = f"{p.located[0]:.2f}–{p.located[1]:.2f} s" if p.located else "—"
        rows.append([p.path.name, p.label or "—", *(f"{100 * p.probabilities[label]:.1f}" if p.label else "—" for label in labels), located,
                     f"{p.frames_with_face}/{p.frames}"])  # fmt: skip
    show_table(["video", "expression", *(f"{label} %" for label in labels), "located clip", "face in frames"], rows)
    for p in predictions:
        if p.failure:
            show(f"{p.path}: {p.failure}")
        elif p.intensity:
            show(f"{p.path.name}: intensity of {p.label} over time")
            highest = max(share for _, _, share in p.intensity)
            for begin, end, share in p.intensity:
                show(f"  {begin:6.2f}–{end:6.2f} s  {100 * share:5.1f} %  {'█' * round(30 * share / highest)}")
