"""ceflpipe pull: a run or an encoder from the Hugging Face hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ...cache.errors import CeflError
from ..console import echo, echo_json, log, progress
from ..paths import built_encoder_file, pretrained_file, pulled_run_folder
from .options import OUT_FILE, OUT_FOLDER, announce, force_option, json_option, quiet_option


@click.command(
    name="pull",
    epilog="Examples: ceflpipe pull me/cefl-demo; ceflpipe pull me/actors --revision COMMIT --checksum HASH",
    short_help="Download a run or an encoder that ceflpipe push uploaded.",
)
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--revision", default="", help="Commit, branch or tag; default: main. The commit is recorded.")
@click.option("--checksum", default="", metavar="HASH", help="Hash that push printed; anything else is refused.")
@click.option(
    "--out", type=OUT_FOLDER,
    help="Folder of a run, default: artifacts/pulled/OWNER/NAME; file of an encoder, default: in artifacts/weights.",
)  # fmt: skip
@click.option(
    "--encoder-out",
    type=OUT_FILE,
    help="File for the encoder of a run; default: artifacts/weights/, by its name there.",
)
@force_option
@json_option
@quiet_option
def command(
    repository: str, revision: str, checksum: str, out: Path | None, encoder_out: Path | None, force: bool, as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Download a run, with its encoder, or an encoder, at one commit, and compare every file with its checksum.

    Only the files of a run or encoder are taken; weights are safetensors, so no code of a stranger runs. The commit and the
    hash are kept in NAME.hub.json next to it. The same repository at another commit is refused without --revision, and the same
    commit with other bytes always. Needs pip install "ceflpipe[hub]".
    """
    from ..sharing import check_pin, check_targets, pull, read_remote

    folder, kind, left_out = read_remote(repository, revision)
    target = out or (pulled_run_folder(repository) if kind == "run" else _encoder_path(repository.split("/")[1]))
    check_pin(repository, folder, target, revision)
    announce(check_targets(kind, target, force=force))
    if left_out and not quiet:
        log(f"not taken, no part of {'a run' if kind == 'run' else 'an encoder'}: {', '.join(left_out)}")
    with progress("downloading", quiet=quiet) as on_progress:
        pulled = pull(
            repository, folder, kind, target, encoder_out=lambda name: encoder_out or _encoder_path(Path(name).stem),
            sha256=checksum, left_out=left_out, force=force, on_progress=on_progress,
        )  # fmt: skip
    if as_json:
        echo_json(asdict(pulled))
        return
    if not quiet:
        log(f"commit {pulled.commit}, SHA-256 {pulled.sha256}; pin both with --revision and --checksum")
        if kind == "run":
            option = f" --encoder {pulled.encoder}" if pulled.encoder else ""
            log(f"next: ceflpipe predict film.mp4 --run {target}{option}")
            if not pulled.encoder:
                log("its encoder is not in the repository: its card (README.md) names it")
    echo(pulled.path)


def _encoder_path(name: str) -> Path:
    """Return the file for an encoder of this name; raises CeflError if the encoder of this name comes with the package."""
    if pretrained_file(name):
        raise CeflError(
            f"{name}: always is the encoder that comes with ceflpipe; give a file for this one with --out (of a run: "
            "--encoder-out)"
        )
    return built_encoder_file(name)
