"""ceflpipe predict: expressions in any video over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...cache.errors import CeflError, shorten_list
from ..console import (
    Column,
    RowPrinter,
    chart_width,
    draws_charts,
    echo,
    echo_chart_over_time,
    echo_json,
    echo_table,
    log,
    progress,
)
from ..paths import DEFAULT_RUN, find_run
from .options import (
    OUT_FILE,
    OUT_FOLDER,
    PATH,
    CommaList,
    announce,
    check_region,
    decode_timeout_option,
    det_size_option,
    device_option,
    force_option,
    fps_option,
    json_option,
    quiet_option,
    warn_of_hidden_encoder,
)

if TYPE_CHECKING:
    from ...stages.heads.run_io import Run
    from ...stages.predict.predict import Input
    from ...stages.predict.results import Record
    from ..predicting import FinishedVideo

MAX_SEGMENTS = 24
BAR_WIDTH = 30
"""Characters of the longest bar."""
MIN_SHOWN = 0.05
"""Labels that are never more probable are left out of the chart over time."""


@click.command(
    name="predict",
    epilog="Examples: ceflpipe predict holiday.mp4; ceflpipe predict videos/ --out results --format csv,eaf,boris,vtt",
    short_help="Predict the expression in any video file, and where in it.",
)
@click.argument("videos", nargs=-1, required=True, type=PATH)
@click.option(
    "--run", "run_path", type=PATH, default=DEFAULT_RUN, show_default=True,
    help="Run folder: folds, e.g. artifacts/runs/mine/faces/cefl, whose mean predicts, or a final model, e.g. "
    "artifacts/runs/mine/faces/cefl-final; faces comes with the package, trained on photographs of real people.",
)  # fmt: skip
@click.option(
    "--all-faces", is_flag=True, help="Every face track, not only the main face; a face that comes back is a new track."
)
@click.option(
    "--identity-network",
    type=PATH,
    metavar="FILE",
    help="Join the tracks of --all-faces to persons, across cuts and absences, by this ONNX network (as insightface's "
    "w600k_r50.onnx). Without it every track is a person.",
)
@click.option(
    "--person-thresh",
    type=float,
    metavar="COSINE",
    help="Similarity from which two tracks are one person, -1..1; default: that in the network's card, else 0.4.",
)
@click.option(
    "--people",
    type=PATH,
    metavar="CSV",
    help="Names of persons, columns person,name (or track,name, and video if there are several): they are in all files.",
)
@click.option(
    "--out",
    type=OUT_FOLDER,
    help="Folder for the files of each video, written as they come; a second run skips finished videos.",
)
@click.option(
    "--format",
    "formats",
    type=CommaList(),
    metavar="A,B,…",
    help="Files of each video, needs --out: csv, parquet, json, eaf (ELAN), boris, vtt and srt (subtitles), openface, png (the "
    "timeline), html (a page to watch and correct), persons (a picture of every person), mp4 (as --overlay); default: "
    "csv,json,png. Another one later is made without predicting again.",
)
@click.option(
    "--overlay",
    is_flag=True,
    help="Also write each video, with its sound, with box, landmarks, label and intensity drawn in; needs --out.",
)
@click.option(
    "--csv",
    "csv_path",
    type=OUT_FILE,
    help="A CSV of all videos; default with --out: predictions.csv in it. Without --out a second run begins again.",
)
@click.option(
    "--rotation",
    type=click.Choice(["0", "90", "180", "270", "auto"]),
    default="0",
    help="Turn every video clockwise by so many degrees, after what the file itself says; auto: so that faces are upright.",
)
@click.option(
    "--region",
    default="",
    metavar="'X Y W H'",
    callback=check_region,
    help="Use only this part of every frame: left, top, width and height in pixels after the rotation.",
)
@fps_option
@click.option(
    "--input",
    type=click.Choice(["video", "crops"]),
    help="crops: the videos are face crops, as those are that the run was trained on; default: faces are detected.",
)
@det_size_option
@click.option(
    "--no-calibration", is_flag=True,
    help="Probabilities as the models give them; default: at the temperature that was fitted to the run's own test.",
)  # fmt: skip
@click.option("--encoder", help="Encoder by name, or a file; default: the one the run was trained with.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes for several videos; default: one per core, on a GPU 0: this one, which a crash of a decoder would end.",
)
@decode_timeout_option
@click.option("--dry-run", is_flag=True, help="List the videos and what would be done with each, and do nothing.")
@device_option
@force_option
@json_option
@quiet_option
def command(
    videos: tuple[Path, ...], run_path: Path, all_faces: bool, identity_network: Path | None, person_thresh: float | None,
    people: Path | None, out: Path | None, formats: tuple[str, ...] | None, overlay: bool,
    csv_path: Path | None, rotation: str, region: str, fps: float | None, input: Input | None,
    det_size: int | None, no_calibration: bool, encoder: str | None, workers: int | None, decode_timeout: float, dry_run: bool,
    device: str, force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Predict the expression in videos: files, folders of them, or patterns in quotes.

    Faces are detected and encoded exactly as in stage one; probabilities are the mean over all folds and seeds of the run,
    each calibrated by the run's temperature.
    A video of up to 105 frames is one window, as in the run's own test; a longer one is predicted in windows of 105 frames
    with a stride of 35, and its label is the mean over them. Frames are not kept in memory, so long videos are fine. With
    --all-faces a face that is lost for more than 12 frames (50 behind another face), or that comes back after
    a scene cut, is a new track; --identity-network joins the tracks of a person. Names of --people are given without
    predicting again.

    Exits with 1 if some videos are truncated or have no prediction, and with 2 if the only video has none.
    """
    from ...cache.ownership import check_files
    from ...stages.heads.run_io import read_run
    from ...stages.manifest.files import describe_skipped, expand_video_paths
    from ...stages.predict.formats.output_formats import (
        ALL_FACES_FORMATS,
        DEFAULT_FORMATS,
        OVERLAY,
        check_formats,
        draws_overlay,
    )
    from ...stages.predict.identity import hint
    from ...stages.predict.inference import WINDOW_STRIDE
    from ...stages.predict.person_names import NO_NAMES, read_person_names
    from ...stages.predict.predict import (
        FrameCounter,
        PersonOptions,
        VideoView,
        declared_frames,
        extract_config_of,
    )
    from ...stages.predict.results import (
        ROW_BYTES,
        PredictOptions,
        ResultFolder,
        ResultTable,
        check_outside_videos,
        is_result_video,
    )
    from ...stages.slots import NUM_SLOTS
    from ..paths import encoder_file
    from ..predicting import FinishedVideo, default_workers, iter_outcomes

    for option, given in (("--overlay", overlay), ("--format", formats is not None)):
        if given and not out:
            raise CeflError(f"{option} needs a folder to write to: give --out too")
    names = read_person_names(people) if people else NO_NAMES
    persons = PersonOptions(identity_network, person_thresh, names)
    if identity_network and not all_faces:
        raise CeflError("--identity-network: tells the faces of --all-faces apart; give --all-faces too")
    if identity_network and not identity_network.is_file():
        raise CeflError(f"--identity-network {identity_network}: no such file; {hint()}")
    default = ALL_FACES_FORMATS if all_faces else DEFAULT_FORMATS
    chosen = default if formats is None else formats
    if overlay and OVERLAY not in chosen:
        chosen = (*chosen, OVERLAY)
    for line in check_formats(chosen):
        log(line)
    run = read_run(find_run(run_path))
    listing = expand_video_paths(videos)
    paths = [path for path in listing.videos if path in videos or not is_result_video(path)]
    if not quiet:
        for line in describe_skipped(listing.skipped):
            log(line)
        if len(paths) < len(listing.videos):
            log(f"skipped {len(listing.videos) - len(paths)} overlay videos of an earlier predict")
    encoder_name = encoder or run.extraction_settings.encoder
    encoder_path = encoder_file(encoder_name)
    warn_of_hidden_encoder(encoder_name)
    config = extract_config_of(run, encoder_path, device, input, det_size)
    view = VideoView("" if rotation == "0" else rotation, region, fps or 0.0)
    options = PredictOptions(run, config, view, all_faces, persons=persons, calibration=not no_calibration)
    folder = ResultFolder(out, paths, options, chosen) if out else None
    csv_path = csv_path or (out / "predictions.csv" if out else None)
    inputs = [
        *paths,
        encoder_path,
        *(file for file in (identity_network, people) if file),
        *(file for file in run.path.rglob("*") if file.is_file()),
    ]
    if out and folder:
        check_outside_videos(out, paths, "--out")
        announce(folder.check(inputs, force=force))
    if csv_path:
        check_outside_videos(csv_path.parent, paths, "--csv")
        announce(check_files([csv_path], "--csv", inputs=inputs, force=force, required_bytes=ROW_BYTES * len(paths)))
    finished = {
        path: FinishedVideo(known, folder.missing(path, known))
        for path in paths
        if folder and (known := folder.finished(path, read_only=dry_run)) is not None
    }
    pending = [path for path in paths if path not in finished]
    num_workers = default_workers(len(pending), config.device) if workers is None else workers
    if dry_run:
        _print_plan(paths, finished, num_workers, out or csv_path, as_json=as_json)
        return
    if not quiet and run.extraction_settings.input != config.input:
        log(
            "this run was trained on face crops that came with its data set; here faces are detected and aligned, which may "
            "cut them differently: if your videos are such crops, give --input crops"
        )
    if not quiet and len(paths) == 1 and (count := declared_frames(paths[0])) > NUM_SLOTS:
        name = paths[0].name
        log(f"{name}: about {count} frames, predicted in windows of {NUM_SLOTS} with a stride of {WINDOW_STRIDE}")
    if finished and not quiet:
        log(f"{len(finished)} of {len(paths)} videos are finished")
    table = ResultTable(csv_path, run.labels) if csv_path else None
    by_number: dict[int, list[Record]] = {}
    problems: list[str] = []
    show = None if as_json else _RecordPrinter(paths, run.labels, all_faces)
    with progress("predicting", quiet=quiet, transient=not as_json) as on_progress:
        redrawn = [path for path, known in finished.items() if draws_overlay(known.missing)]
        counter = FrameCounter(pending, on_progress, passes=2 if OVERLAY in chosen else 1, redrawn=redrawn)
        if folder:
            folder.check_disk_space(pending, counter.num_frames)
        try:
            for outcome in iter_outcomes(paths, options, folder, finished, counter, num_workers, decode_timeout):
                by_number[outcome.number] = outcome.records
                if outcome.problem:
                    problems.append(outcome.problem)
                if show:
                    show(outcome.records)
                if table:
                    table.add(outcome.number, outcome.records)
        finally:
            if table:
                table.write()
    records = [record for number in sorted(by_number) for record in by_number[number]]
    if as_json:
        echo_json(records)
    else:
        _print_details(records, run.labels)
        if not quiet and (line := _describe_persons(records, identity_network)):
            log(line)
        if not quiet:
            for line in _describe_run(run, run_path, calibrated=not no_calibration):
                log(line, wrap=True)
            if len(paths) > 1:
                log(_summarize(list(by_number.values()), len(finished), len(problems)))
    for problem in problems:
        log(problem)
    if len(records) == 1 and records[0]["failure"]:
        raise CeflError(f"{records[0]['path']}: {records[0]['failure']}")
    if not as_json and (out or csv_path):
        echo(str(out or csv_path))
    raise click.exceptions.Exit(1 if problems or any(_is_failed(record) for record in records) else 0)


def _print_plan(
    paths: Sequence[Path], finished: Mapping[Path, FinishedVideo], workers: int, target: Path | None, *, as_json: bool
) -> None:
    """Print what a command would do with each video; ends it with 1 if one cannot be opened."""
    from ...stages.extract.video_reader import DecodeError, open_video

    rows, seconds, failed = [], 0.0, 0
    for path in paths:
        length, state = "—", "to predict"
        if path in finished:
            missing = len(finished[path].missing)
            state = f"finished, {missing} files to add" if missing else "finished"
        try:
            reader = open_video(path)
            frames, duration = reader.declared_frames, reader.declared_frames / reader.fps if reader.fps else 0.0
            length = f"{duration:.1f} s" if frames > 0 else "not declared"
            seconds += duration if frames > 0 and path not in finished else 0.0
        except DecodeError as error:
            failed += 1
            state = f"cannot be opened: {error}" if path.exists() else "no such file"
        rows.append([str(path), length, state])
    columns = ["video", "length", "what would be done"]
    if as_json:
        echo_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        echo_table(columns, rows)
    where = f"; results would be in {target}" if target else ""
    processes = f"{workers} workers" if workers else "this process"
    log(
        f"{len(paths) - len(finished) - failed} of {len(paths)} videos, {seconds:.0f} s, to predict by {processes}{where}"
    )
    if failed:
        raise click.exceptions.Exit(1)


def _summarize(results: Sequence[Sequence[Record]], num_finished: int, num_problems: int) -> str:
    """Return in a line what became of the videos."""
    statuses = Counter(records[0]["status"] if records and records[0]["failure"] else "" for records in results)
    counts = {
        "predicted": statuses.pop("", 0) - num_finished,
        "finished before": num_finished,
        **{status.replace("-", " "): count for status, count in statuses.most_common()},
        "whose files could not be written": num_problems,
    }
    return f"{len(results)} videos: {', '.join(f'{count} {text}' for text, count in counts.items() if count)}"


def _is_failed(record: Record) -> bool:
    return bool(record["failure"]) or record["status"] == "truncated"


def _describe_persons(records: Sequence[Record], network: Path | None) -> str:
    """Return in a line how sure it is who is who, '' if there is nothing to say."""
    from ...stages.predict.identity import hint

    unsure = [record for record in records if record["unsure"]]
    if not unsure:
        return ""
    if network is None:
        return f"tracks are not joined across cuts and absences, so each is a person of its own: {hint()} (--identity-network)"
    tracks = shorten_list([f"{Path(record['path']).name} track {record['track']}" for record in unsure])
    return (
        f"{len(unsure)} of {len(records)} tracks may be of another person (? in the table): {tracks}; look at "
        "NAME.cefl.persons.png, and correct them with --people"
    )


def _describe_run(run: Run, name: Path, *, calibrated: bool) -> list[str]:
    """Return in lines what predicted, how good it is by its own test, and how far its confidence is to be trusted."""
    models = len(run.config["models"])
    if run.is_final:
        line = (
            f"by {name}: final model, {models} of {run.train_config.head}, trained on all {run.metrics['videos']:,} videos of "
            f"{run.config['dataset']}; expected to be right in {_percent(run.metrics['expected_war'])} (its cross-validation "
            f"{run.config['final']['run']}, {run.describe_cv()}; not measured on it)"
        )
    else:
        line = (
            f"by {name}: {models} {'model' if models == 1 else 'models'} of {run.train_config.head}, trained on "
            f"{run.config['dataset']}; right in {_percent(run.metrics['war'])} of {run.metrics['videos']:,} held-out videos, "
            f"{run.describe_cv()}"
        )
    lines = [line]
    if run.config["dataset"] == "demo":
        lines.append("trained on synthetic faces: do not expect useful predictions on real ones")
    return [*lines, _describe_confidence(run, calibrated)]


def _percent(values: dict[str, Any]) -> str:
    """Return a mean with its standard deviation (ddof 0) if there is more than one fold."""
    spread = f" ± {100 * values['std_ddof0']:.2f}" if values["n"] > 1 else ""
    return f"{100 * values['mean']:.2f}{spread} %"


def _describe_confidence(run: Run, calibrated: bool) -> str:
    values = run.calibration
    if values is None:
        again = (run.config["command"] or "ceflpipe train-heads --final") if run.is_final else ""
        return "confidence is not calibrated: the run has no temperature" + (
            f", as of earlier versions; train the final model again: {again}" if again else ""
        )
    if not calibrated:
        return "confidence is not calibrated: --no-calibration"
    if values["ece_after"] is None:
        return f"confidence is at temperature {values['temperature']:.2f}, whose effect could not be measured"
    return (
        f"calibration error {100 * values['ece_after']:.1f} % (without calibration {100 * values['ece_before']:.1f} %) on "
        f"{values['n']:,} held-out predictions; temperature {values['temperature']:.2f}"
    )


class _RecordPrinter:
    """Prints a row per face track as videos are finished."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[str], all_faces: bool) -> None:
        self._all_faces = all_faces
        names = [len(path.name) for path in paths]
        columns = [
            Column("expression", max(map(len, labels), default=0)),
            Column("confidence", len("100.0 %"), is_number=True),
            Column("face found", len("100 %"), is_number=True),
            Column(
                "time" if all_faces else "length", len("100.0–110.0 s" if all_faces else "1000.0 s"), is_number=True
            ),
            *([Column("track", len("10 of 10"))] if all_faces else []),
            Column("person", len("person 10 ?" if all_faces else "main face")),
        ]
        self._print = RowPrinter("video", max(names, default=0), columns)

    def __call__(self, records: Sequence[Record]) -> None:
        for p in records:
            confidence = "—" if p["confidence"] is None else f"{100 * p['confidence']:.1f} %"
            face_share = f"{100 * p['frames_with_face'] / p['frames']:.0f} %" if p["frames"] else "—"
            cells = [p["label"] or "—", confidence, face_share]
            if self._all_faces:
                whose = f"{p['name'] or p['person'] or '—'}{' ?' if p['unsure'] else ''}"
                cells += [f"{p['begin']:.1f}–{p['end']:.1f} s" if p["end"] > p["begin"] else "—"]
                cells += [f"{p['track']} of {len(records)}" if p["track"] else "—", whose]
            else:
                cells += [f"{p['end'] - p['begin']:.1f} s" if p["end"] > p["begin"] else "—"]
                cells += ["—" if p["failure"] else p["name"] or "main face"]
            self._print(Path(p["path"]).name, cells)


def _print_details(predictions: Sequence[Record], labels: Sequence[str]) -> None:
    """Print why videos have no prediction, what is to be known of them, and a single prediction over time."""
    for p in predictions:
        reason = p["failure"] if len(predictions) > 1 else ""  # that of a single video ends the command
        if reason or p["note"]:
            echo(f"{p['path']}: {reason or p['note']}")
        if p["naming"]:
            echo(f"{p['path']}: {p['naming']}")
    if len(predictions) == 1 and not predictions[0]["failure"]:
        _print_over_time(predictions[0], labels)


def _print_over_time(prediction: Record, labels: Sequence[str]) -> None:
    ranked = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])
    parts = [f"runner-up {ranked[1][0]} {100 * ranked[1][1]:.1f} %"] if len(ranked) > 1 else []
    if prediction["located_time"]:
        begin, end = prediction["located_time"]
        parts.append(f"most intense {begin:.2f}–{end:.2f} s")
    echo(", ".join(parts))
    if len(prediction["windows"]) == 1:
        _print_intensity(prediction)
    elif draws_charts():
        _print_chart(prediction, labels)
    else:
        _print_segments(prediction, labels)


def _print_intensity(prediction: Record) -> None:
    if not prediction["intensity"]:
        return
    echo(f"intensity of {prediction['label']} over the clips, in percent")
    highest = max(weight for _, _, weight in prediction["intensity"])
    for begin, end, weight in prediction["intensity"]:
        bar = "█" * round(BAR_WIDTH * weight / highest) if draws_charts() else ""
        echo(f"  {begin:6.2f}–{end:6.2f} s  {100 * weight:5.1f} %  {bar}".rstrip())


def _print_chart(prediction: Record, labels: Sequence[str]) -> None:
    """Draw the probability of each label over time, the mean over the windows at that time, and what is left out."""
    windows = [window for window in prediction["windows"] if window["label"]]
    count, begin, end = chart_width(labels), prediction["begin"], prediction["end"]
    over_time: dict[str, list[float]] = {label: [] for label in labels}
    for i in range(count):
        time = begin + (i + 0.5) * (end - begin) / count
        there = [window["probabilities"] for window in windows if window["begin"] <= time < window["end"]]
        for label in labels:
            over_time[label].append(sum(p[label] for p in there) / len(there) if there else float("nan"))
    peaks = {label: max((v for v in values if v == v), default=0.0) for label, values in over_time.items()}
    shown = sorted((label for label in labels if peaks[label] >= MIN_SHOWN), key=lambda label: -peaks[label])
    echo(f"probability over time, {prediction['aggregation']}")
    echo_chart_over_time({label: over_time[label] for label in shown}, begin, end)
    if len(shown) < len(labels):
        echo(f"  never above {100 * MIN_SHOWN:.0f} %: {', '.join(label for label in labels if label not in shown)}")


def _print_segments(prediction: Record, labels: Sequence[str]) -> None:
    rows = prediction["segments"]
    echo(f"{prediction['aggregation']}; the leading label over time")
    width = max((len(label) for label in labels), default=0)
    for row in rows[:MAX_SEGMENTS]:
        time = f"{row['begin']:8.2f}–{row['end']:8.2f} s"
        echo(f"  {time}  {row['label']:<{width}}  {100 * row['confidence']:5.1f} %")
    if len(rows) > MAX_SEGMENTS:
        echo(f"  … and {len(rows) - MAX_SEGMENTS} more; all of them with --out or --json")
