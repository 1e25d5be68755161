"""ceflpipe push: a run or an encoder to the Hugging Face hub."""

from __future__ import annotations

import click

from ..console import echo, echo_json, echo_table, log
from .options import json_option, quiet_option


@click.command(
    name="push",
    epilog="Examples: ceflpipe push me/cefl-demo artifacts/runs/demo/faces/cefl-final --dry-run; ceflpipe push me/actors actors",
    short_help="Upload a run or an encoder, with its card, to the Hugging Face hub; private by default.",
)
@click.argument("repository", metavar="OWNER/NAME")
@click.argument("source", metavar="RUN|ENCODER")
@click.option("--public", is_flag=True, help="Let everybody read it; without this the repository is private.")
@click.option("--message", default="", help="Message of the commit.")
@click.option("--dry-run", is_flag=True, help="Only say what would be uploaded; no connection is made.")
@json_option
@quiet_option
def command(
    repository: str, source: str, public: bool, message: str, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Upload the folder of a run, with its encoder unless that comes with ceflpipe, or an encoder file, in one commit.

    Weights are safetensors; nothing else than the files of the run or encoder and their checksums is uploaded, and they are
    listed first. Prints the commit and the hash that pin it for ceflpipe pull. Needs pip install "ceflpipe[hub]", and hf auth
    login or HF_TOKEN.
    """
    from ...stages.encoder.hub import check_repository
    from ..sharing import make_upload, push

    check_repository(repository)
    content = make_upload(source)
    sizes = content.sizes
    if not quiet and not as_json:
        title = f"{content.kind} to {repository}, {'public' if public else 'private'}"
        echo_table(["file", "bytes"], [(name, f"{size:,}") for name, size in sizes.items()], title=title)
    if not quiet:
        for note in content.notes:
            log(note)
    commit = "" if dry_run else push(repository, content, public=public, message=message)
    if as_json:
        echo_json({
            "repository": repository, "kind": content.kind, "commit": commit or None, "sha256": content.sha256,
            "public": public, "files": sizes, "notes": content.notes,
        })  # fmt: skip
    elif dry_run:
        log(f"{sum(sizes.values()):,} bytes; nothing was uploaded (--dry-run)")
    else:
        echo(f"ceflpipe pull {repository} --revision {commit} --checksum {content.sha256}")
