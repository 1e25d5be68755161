"""Encoders compared on one data set: feature caches of the same videos, runs with the same folds and seeds, cost per frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..cache.atomic import read_json
from ..cache.errors import CeflError, shorten_list
from ..cache.features import VideoIndex
from ..cache.hdf5 import read_index
from ..stages.callbacks import ProgressCallback, ignore_progress
from ..stages.heads.comparison import EncoderRuns, protocol_differences
from ..stages.heads.convergence import loss_state
from ..stages.heads.run_io import Run, read_run
from ..stages.heads.sweep import RunSpec, expand_grid
from .config import TrainOptions, load_pipeline_config
from .console import format_interval, format_mean_std, log
from .dataset import DatasetSource
from .names import encoder_key
from .paths import (
    ADAPTED,
    ARTIFACTS,
    END_TO_END,
    TIMING_FILE,
    features_file,
    features_folder,
    fold_encoders_folder,
    is_timing_file,
    run_folder,
    timing_file,
)
from .training import make_run_spec, run_sweep

COLUMNS = (
    "head", "encoder", "width", "n", "WAR %", "± ddof 0", "± ddof 1", "UAR %", "train %", "loss", "locating %", "difference",
    "95 % interval", "wins", "ms/frame", "hours",
)  # fmt: skip


def encoder_sources(source: DatasetSource, encoders: Sequence[str]) -> dict[str, DatasetSource]:
    """Return the same videos with each encoder's features, by the encoder's name in artifacts/.

    Raises CeflError for two of one name, if a feature cache is missing or lacks videos that another one has, or if two were made
    of other source files.
    """
    sources = {encoder_key(encoder): source.with_encoder(encoder) for encoder in encoders}
    if len(sources) < len(encoders):
        raise CeflError(
            f"--encoders {','.join(encoders)}: two of them are called the same in artifacts/; give each once"
        )
    missing = {name: each for name, each in sources.items() if not each.features_path.exists()}
    if missing:
        commands = "; ".join(_command_for(each, name) for name, each in missing.items())
        raise CeflError(f"--encoders: no features of {', '.join(missing)} for {source.name}; make them with {commands}")
    ids = {entry.id for entry in source.manifest().entries}
    _check_same_videos(sources, {name: read_index(each.features_path) for name, each in sources.items()}, ids)
    return sources


def _command_for(source: DatasetSource, encoder: str) -> str:
    """Return the command that makes the features of an encoder, or trains it end to end."""
    if encoder.endswith(ADAPTED):
        return f"ceflpipe encoder adapt {source.option} --encoder {encoder.removesuffix(ADAPTED)}"
    if encoder.endswith(END_TO_END):
        return f"ceflpipe train-end-to-end {source.option} --encoder {encoder.removesuffix(END_TO_END)}"
    return f"ceflpipe extract {source.option} --encoder {encoder}"


def split_encoders(encoders: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of encoders whose features are cached, and those that were trained end to end, which have none.

    Raises CeflError for fewer than two encoders, or if none has features.
    """
    end_to_end = [name for name in encoders if name.endswith(END_TO_END)]
    cached = [name for name in encoders if name not in end_to_end]
    if len(encoders) < 2 or not cached:
        need = "at least two encoders to compare" if len(encoders) < 2 else "an encoder with cached features too"
        raise CeflError(f"--encoders {','.join(encoders)}: give {need}, as in --encoders a,b")
    return cached, end_to_end


def read_end_to_end(source: DatasetSource, name: str, references: Sequence[Run]) -> EncoderRuns:
    """Return the runs of train-end-to-end with the heads of the ``references`` for which there is one.

    Raises CeflError if there is none, or one differs from its reference in more than what is compared.
    """
    runs = []
    for reference in references:
        head = reference.train_config.head
        path = run_folder(f"{source.name}/{name}", head)
        if not (path / "run.json").is_file():
            continue
        run = read_run(path)
        if differences := protocol_differences(run, reference):
            raise CeflError(
                f"{path}: differs from {reference.path} in {', '.join(differences)}; train it again with "
                f"{_command_for(source, name)} --head {head}"
            )
        runs.append(run)
    if not runs:
        raise CeflError(f"--encoders: no run of {name} for {source.name}; train one with {_command_for(source, name)}")
    return EncoderRuns(name, tuple(runs), hours=read_hours(source.name, name))


def read_hours(dataset: str, encoder: str) -> float | None:
    """Return the hours that the features of an encoder took: extracting them, or training the encoders of the folds and what
    follows; None if that is not recorded."""
    seconds = []
    folds = fold_encoders_folder(dataset, encoder) / TIMING_FILE
    if folds.is_file():
        seconds += read_json(folds, "durations").values()
    for path in (timing_file(features_file(dataset, encoder)), timing_file(features_folder(dataset) / encoder)):
        if path.is_file() and is_timing_file(path):
            seconds.append(read_json(path, "the duration of an extraction")["seconds"])
    return sum(seconds) / 3600 if seconds else None


def _check_same_videos(
    sources: Mapping[str, DatasetSource], indexes: Mapping[str, VideoIndex], listed: set[str]
) -> None:
    (first, *others) = sources
    hashes = {
        name: {video: digest for video, digest in zip(index.id, index.source_sha256, strict=True) if video in listed}
        for name, index in indexes.items()
    }
    command = f"ceflpipe extract {sources[first].option} --encoder"
    for name in sources:
        for other in sources:
            if lacking := sorted(set(hashes[other]) - set(hashes[name])):
                raise CeflError(
                    f"{sources[name].features_path}: lacks {len(lacking)} videos that {sources[other].features_path} has "
                    f"({shorten_list(lacking)}); extract them with {command} {name}"
                )
    tracks = {name: dict(zip(index.id, index.detection, strict=True)) for name, index in indexes.items()}
    for name in others:
        changed = sorted(video for video in hashes[name] if hashes[name][video] != hashes[first][video])
        if changed:
            raise CeflError(
                f"{sources[name].features_path}: {len(changed)} videos are of other source files than those of "
                f"{sources[first].features_path} ({shorten_list(changed)}); bring both up to date with {command} {first} "
                f"--verify; {command} {name} --verify"
            )
        other_faces = sum(tracks[name][video] != tracks[first][video] for video in hashes[name])
        if other_faces:
            log(
                f"warning: the faces of {other_faces} videos were found with other settings for {name} than for {first}, so that "
                "differences are not the encoder's alone"
            )


def comparison_specs(
    sources: Mapping[str, DatasetSource], options: TrainOptions, heads: Sequence[str], *, force: bool
) -> dict[str, list[RunSpec]]:
    """Return the runs of each encoder, in the folders that train-heads writes; ``heads``: empty for those of pipeline.yaml."""
    specs = {}
    for name, source in sources.items():
        base = make_run_spec(source, options)
        grid = expand_grid(base, Path(), heads=heads or load_pipeline_config().heads)
        specs[name] = [
            replace(spec, out=run_folder(source.results_name(), spec.config.head), force=force) for spec in grid
        ]
    return specs


def train_encoder_runs(
    sources: Mapping[str, DatasetSource],
    specs: Mapping[str, Sequence[RunSpec]],
    *,
    workers: int | None = None,
    on_plan: Callable[[int, Mapping[str, int]], None] = lambda cached, reasons: None,
    on_progress: ProgressCallback = ignore_progress,
) -> list[EncoderRuns]:
    """Train the runs that are not complete yet, one encoder after the other, and return all; ``on_progress`` counts runs."""
    completed, encoders = 0, []
    for name, runs in specs.items():
        count_runs = partial(_count_runs, on_progress, f"{name}: ", completed, sum(map(len, specs.values())))
        trained = run_sweep(runs, workers=workers, on_plan=on_plan, on_progress=count_runs)
        hours = read_hours(sources[name].name, name)
        encoders.append(EncoderRuns(name, tuple(trained), read_encode_ms(sources[name].features_path), hours))
        completed += len(runs)
    return encoders


def _count_runs(
    on_progress: ProgressCallback, prefix: str, before: int, all_runs: int, completed: int, total: int, note: str = ""
) -> None:
    """Report the runs of one encoder, ``completed`` of ``total``, as progress of all."""
    on_progress(before + completed, all_runs, prefix + note)


def read_encoder_runs(source: DatasetSource, main: Sequence[Run]) -> tuple[list[EncoderRuns], list[str]]:
    """Return the runs of all encoders of a data set that can be compared with the ``main`` runs, those of ``source``'s encoder,
    and a message for each run that cannot.

    Encoders are those of pipeline.yaml and of the run folders. Empty unless two encoders have a run of one head.
    """
    by_head = {run.train_config.head: run for run in main}
    own = encoder_key(source.extract_config.encoder)
    first = EncoderRuns(own, tuple(main), read_encode_ms(source.features_path), read_hours(source.name, own))
    encoders, notes = [first], []
    folder = ARTIFACTS / "runs" / source.name
    names = dict.fromkeys([*load_pipeline_config().encoders, *sorted(path.name for path in folder.glob("*"))])
    for name in names:
        runs = []
        for head, reference in by_head.items() if name != own else ():
            path = run_folder(f"{source.name}/{name}", head)
            if not (path / "run.json").is_file():
                continue
            run = read_run(path)
            if run.is_final:
                notes.append(f"{path} is not compared: it is a final model, which was not tested")
            elif differences := protocol_differences(run, reference):
                notes.append(
                    f"{path} is not compared: it differs from {reference.path} in {', '.join(differences)}; train both with "
                    f"ceflpipe ablate {source.option} --encoders {own},{name} --heads {head}"
                )
            else:
                runs.append(run)
        if runs:
            encode_ms = read_encode_ms(features_file(source.name, name))
            encoders.append(EncoderRuns(name, tuple(runs), encode_ms, read_hours(source.name, name)))
    return (encoders if len(encoders) > 1 else []), notes


def read_encode_ms(cache: Path) -> float | None:
    """Return the milliseconds of processor time that the encoder of a feature cache took for a crop; None if not recorded."""
    path = timing_file(cache)
    if not path.is_file() or not is_timing_file(path):
        return None
    return read_json(path, "the duration of an extraction").get("encode_ms")


def table_row(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of COLUMNS for a row of encoder_rows."""
    difference = row["difference"]
    return [
        row["head"], row["encoder"], str(row["width"]), str(row["videos"]), *format_mean_std(row["war"])[:3],
        *(_percent(row[key]) for key in ("uar", "train_accuracy")), loss_state(row["late_loss_decrease"]),
        _percent(row["locating_accuracy"]), "" if difference is None else f"{100 * difference['mean']:+.2f}",
        format_interval(difference),
        "" if difference is None else f"{difference['wins']}:{difference['losses']} of {difference['n']}",
        "—" if row["encode_ms"] is None else f"{row['encode_ms']:.2f}",
        "—" if row["hours"] is None else f"{row['hours']:.2f}",
    ]  # fmt: skip


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.2f}"
