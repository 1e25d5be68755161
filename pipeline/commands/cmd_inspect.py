"""ceflpipe inspect: contents, checksums and aligned faces of a feature cache; model cards of encoder files and runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...cache.errors import CeflError, shorten_list
from ..config import dataset_names
from ..console import echo, echo_json, echo_table, log, print_failures, print_notes, progress
from ..dataset import DatasetOptions, DatasetSource
from ..paths import ENCODER_SUFFIXES, encoder_file
from .options import OUT_FILE, PATH, announce, dataset_options, encoder_option, force_option, json_option, quiet_option

if TYPE_CHECKING:
    from ...cache.features import FeatureTable

SHEET_ROW_BYTES = 300_000
"""Size of a video on a contact sheet, at most about."""


@click.command(
    name="inspect",
    epilog="Examples: ceflpipe inspect; ceflpipe inspect mmi.h5 --verify; ceflpipe inspect --contact-sheet faces.png; "
    "ceflpipe inspect artifacts/weights/actors.safetensors; ceflpipe inspect artifacts/runs/demo/faces/cefl",
    short_help="Summarize a feature cache, or draw its aligned faces; print the model card of an encoder or a run.",
)
@click.argument("cache", metavar="[CACHE|ENCODER|RUN]", required=False, type=PATH)
@click.option(
    "--photographs", type=PATH,
    help="Score an encoder file's own classifier on these photographs: FER+, a folder per expression, or a CSV."
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True,
    help="Split of the photographs to score on."
)  # fmt: skip
@dataset_options
@encoder_option
@click.option("--verify", is_flag=True, help="Compare every video's bytes with their checksum.")
@click.option(
    "--contact-sheet",
    type=OUT_FILE,
    help="Write a PNG of aligned faces with their landmarks, to look at before training.",
)
@click.option(
    "--num-videos", default=12, show_default=True, type=click.IntRange(1, 200), help="Videos on the contact sheet."
)
@click.option(
    "--seed", default=3456, show_default=True, help="Random seed that selects the videos of the contact sheet."
)
@force_option
@json_option
@quiet_option
def command(
    cache: Path | None, photographs: Path | None, split: str, data: DatasetOptions, encoder: str | None, verify: bool,
    contact_sheet: Path | None, num_videos: int, seed: int,
    force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Print how many videos and frames a cache holds, where its crops came from, its settings, and what failed.

    For an encoder, by file (.safetensors, .onnx) or name: print its model card, or with --photographs its accuracy and confusion
    matrix. For the folder of a run: compare its files with their checksums and print its model card.

    Exits with 1 if --verify finds corrupted videos.
    """
    if cache and (encoder_path := _encoder_path(cache)):
        _inspect_encoder(encoder_path, photographs, split, as_json, quiet)
        return
    if cache and (cache / "run.json").is_file():
        _inspect_run(cache, as_json)
        return
    if photographs:
        raise CeflError(
            "--photographs scores an encoder: write ceflpipe inspect ENCODER.safetensors --photographs FOLDER"
        )
    from ...cache.hdf5 import corrupted_videos, read_features
    from ...cache.ownership import check_files

    source = _resolve_source(cache, data)
    path = cache or data.resolve().with_features_of(encoder).find_features(None)
    if contact_sheet:
        if source is None:
            raise CeflError(f"--contact-sheet needs the videos of {path}; pass --dataset, or --manifest and --root")
        videos = [source.root / entry.path for entry in source.manifest().entries]
        sources = [path, source.manifest_path, *videos]
        size = SHEET_ROW_BYTES * num_videos
        announce(check_files([contact_sheet], "--contact-sheet", inputs=sources, force=force, required_bytes=size))
    corrupted = corrupted_videos(path) if verify else None
    table = read_features(path, verify=False, features=False)
    summary = _summarize(path, table, corrupted)
    if as_json:
        echo_json(summary)
    else:
        _print_summary(summary)
    if contact_sheet and source:
        _write_contact_sheet(contact_sheet, table, source, num_videos, seed, quiet)
        if not as_json:
            echo(str(contact_sheet))
    raise click.exceptions.Exit(1 if corrupted else 0)


def _encoder_path(path: Path) -> Path | None:
    """Return the file of an encoder, given as a file or by its name; None if the argument is no encoder."""
    if path.suffix in ENCODER_SUFFIXES:
        return path
    named = encoder_file(path)
    return named if not path.exists() and named.is_file() else None


def _inspect_encoder(path: Path, photographs: Path | None, split: str, as_json: bool, quiet: bool) -> None:
    from dataclasses import asdict

    from ...stages.encoder.model_card import model_card
    from ...stages.encoder.weights import read_encoder_metadata

    encoder = read_encoder_metadata(path)
    if photographs is None:
        if as_json:
            echo_json({**asdict(encoder), "path": str(path)})
        else:
            echo(model_card(encoder))
        return
    from tempfile import TemporaryDirectory

    from ...stages.encoder.train_photographs import score_encoder
    from ...stages.extract.find_face import find_landmarks
    from ..executor import num_cores, process_executor

    with progress("scoring", quiet=quiet) as on_progress, TemporaryDirectory() as folder:
        scores, faces = score_encoder(
            path, photographs, split, Path(folder), find_landmarks, executor=process_executor(num_cores()),
            on_progress=on_progress,
        )  # fmt: skip
    recall = [None if value != value else float(value) for value in scores.recall]
    if as_json:
        echo_json({
            "encoder": str(path), "sha256": encoder.sha256, "photographs": scores.count, "split": split,
            "accuracy": scores.accuracy, "uar": scores.uar, "labels": encoder.labels, "recall": recall,
            "confusion": scores.confusion.tolist(), "faces": faces,
        })  # fmt: skip
        return
    rows = [
        [label, *counts, "—" if value is None else f"{100 * value:.1f}"]
        for label, counts, value in zip(encoder.labels, scores.confusion.tolist(), recall, strict=True)
    ]
    echo(f"{encoder.name} on {photographs}, {split}: accuracy {scores.describe('photographs')}")
    echo_table(["true \\ predicted", *encoder.labels, "recall %"], rows)
    echo(f"the label of most annotators counts as true; {faces}")


def _inspect_run(path: Path, as_json: bool) -> None:
    """Print the model card of a run, after a comparison of all its files with their checksums."""
    from ...stages.heads.run_io import read_run, verify_run

    run = read_run(path)
    if not verify_run(path):
        raise CeflError(f"{path}: files of this run are missing or have changed since it was written; train it again")
    if as_json:
        echo_json({"run": str(path), "config": run.config, "metrics": run.metrics})
    else:
        echo(run.card())


def _resolve_source(cache: Path | None, data: DatasetOptions) -> DatasetSource | None:
    """Return the videos of the cache; for a path without options those of the data set of that name, or None."""
    if cache and not data.dataset and not data.manifest:
        name = next((name for name in (cache.parent.name, cache.stem) if name in dataset_names()), None)
        if name is None:
            return None
        return DatasetOptions(name, None, data.root, data.labels, data.allow_external_paths).resolve()
    return data.resolve()


def _summarize(path: Path, table: FeatureTable, corrupted: list[str] | None) -> dict[str, Any]:
    """Return what is printed as plain values."""
    from collections import Counter
    from dataclasses import asdict

    import numpy as np

    from ...cache.features import FrameStatus, VideoStatus

    videos = table.videos
    lengths = np.sort(videos.length)
    return {
        "cache": str(path),
        "bytes": path.stat().st_size,
        "features_sha256": table.features_sha256,
        "videos": len(videos),
        "video_statuses": dict(Counter(videos.status)),
        "frames": int(lengths.sum()),
        "frames_per_video": [int(lengths[0]), int(lengths[len(lengths) // 2]), int(lengths[-1])]
        if len(lengths)
        else [],
        "frame_statuses": {s.name.lower(): int((table.frame_status == s).sum()) for s in FrameStatus},
        "fps": sorted({float(fps) for fps in videos.fps if fps > 0}),
        "settings": asdict(table.settings),
        "made_by": {
            key: dict(Counter(getattr(videos, key)).most_common())
            for key in ("code_hash", "detection_code", "device", "decoder")
        },
        "failed": [
            {"id": video_id, "status": status, "note": note}
            for video_id, status, note in zip(videos.id, videos.status, videos.note, strict=True)
            if status != VideoStatus.OK
        ],
        "notes": [
            {"id": video_id, "note": note}
            for video_id, status, note in zip(videos.id, videos.status, videos.note, strict=True)
            if status == VideoStatus.OK and note
        ],
        "corrupted": corrupted,
    }


def _print_summary(summary: dict[str, Any]) -> None:
    shortest, median, longest = summary["frames_per_video"] or (0, 0, 0)
    echo(
        f"{summary['cache']}: {summary['videos']} videos, {summary['frames']:,} frames "
        f"({shortest} to {longest} per video, median {median}), {summary['bytes'] / 1e6:.1f} MB"
    )
    echo_table(["videos", "count"], list(summary["video_statuses"].items()))
    total = max(1, summary["frames"])
    echo_table(
        ["frames", "count", "%"],
        [(status, f"{count:,}", f"{100 * count / total:.2f}") for status, count in summary["frame_statuses"].items()],
    )
    settings = {key: value[:12] if key.endswith("sha256") else value for key, value in summary["settings"].items()}
    rows = [(key.replace("_", " "), value) for key, value in settings.items() if value != ""]
    echo_table(["setting", "value"], rows)
    rows = [
        (key.replace("_", " "), value, n) for key, counts in summary["made_by"].items() for value, n in counts.items()
    ]
    echo_table(["made by", "", "videos"], rows)
    rates = ", ".join(f"{fps:g}" for fps in summary["fps"][:6]) or "unknown"
    echo(f"SHA-256 of the features {summary['features_sha256'][:12]}; frames per second {rates}")
    failed = [(video["id"], video["status"], video["note"]) for video in summary["failed"]]
    print_failures(failed, summary["videos"])
    print_notes([(video["id"], video["note"]) for video in summary["notes"]])
    corrupted = summary["corrupted"]
    if corrupted is None:
        echo("checksums not verified; verify them with --verify")
    elif corrupted:
        names = shorten_list(corrupted, 5)
        echo(
            f"{len(corrupted)} of {summary['videos']} videos corrupted ({names}); ceflpipe extract --verify redoes them"
        )
    else:
        echo(f"all {summary['videos']} checksums OK")


def _write_contact_sheet(
    path: Path, table: FeatureTable, source: DatasetSource, num_videos: int, seed: int, quiet: bool
) -> None:
    from ...cache.ownership import write_owned
    from ...stages.plots.strips import contact_sheet_figure
    from ...stages.plots.style import png
    from ...stages.report.contact_sheet import contact_sheet

    rows = contact_sheet(source.manifest(), table, num_videos, seed)
    if not rows:
        raise CeflError(
            f"--contact-sheet: none of the videos in {source.root} is in the cache; pass --dataset or --manifest"
        )
    with write_owned(path) as temporary:
        temporary.write_bytes(png(contact_sheet_figure(rows), dpi=110))
    if not quiet:
        log(f"{len(rows)} random videos (--seed {seed}); orange borders mark crops without a detected face")
