"""Command-line entry point: a click group whose commands are imported when they are used."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from .. import __version__
from ..cache.errors import CeflError

COMMANDS = {
    "demo": "cmd_demo",
    "manifest": "cmd_manifest",
    "check": "cmd_check",
    "datasets": "cmd_datasets",
    "encoder": "cmd_encoder",
    "extract": "cmd_extract",
    "merge-shards": "cmd_merge_shards",
    "inspect": "cmd_inspect",
    "train-heads": "cmd_train_heads",
    "sweep": "cmd_sweep",
    "ablate": "cmd_ablate",
    "complexity": "cmd_complexity",
    "predict": "cmd_predict",
    "report": "cmd_report",
}


class LazyGroup(click.Group):
    """The commands in the order of the pipeline; torch is imported by the ones that need it, when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f".commands.{COMMANDS[cmd_name]}", __package__).command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ..cache.errors import did_you_mean

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], list(COMMANDS))
            raise click.UsageError(f"{error.format_message().rstrip('.')}{hint}", ctx) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ceflpipe")
def cli() -> None:
    """Facial expression videos to trained CEFLNet heads and a report, by way of cached features.

    \b
    The main road, on the rendered actors that need no licence and no download:
      ceflpipe demo                    render the data set
      ceflpipe encoder actors          make the frame encoder
      ceflpipe extract                 stage one: faces and features
      ceflpipe train-heads --folds 10  stage two: heads, cross-validated
      ceflpipe report                  one page with tables and figures

    `dvc repro` does all of it and repeats only what changed.
    """


def _format_os_error(error: OSError) -> str:
    """Say what a full disk, a read-only folder or a vanished drive did, in one line."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    for number, words in (
        (errno.ENOSPC, "the disk is full"),
        (errno.EFBIG, "a file may not grow beyond the limit set here"),
    ):
        if error.errno == number or f"errno = {number}" in text:  # HDF5 hides the number in its message
            return f"{words} ({error.filename or 'while writing'})"
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else text


def main() -> None:
    """Run the command line: 0 done, 1 done but some videos failed, 2 wrong input."""
    # torch's idle threads spin by default; beside any other busy process that makes each step up to 15 times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = cli.main(standalone_mode=False)
    except CeflError as error:
        click.echo(f"ceflpipe: {error}", err=True)
        code = 2
    except click.exceptions.Abort:
        click.echo("ceflpipe: stopped; what was finished is kept, run the same command to go on", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MemoryError:
        click.echo("ceflpipe: memory is used up; what was finished is kept, try fewer --workers", err=True)
        code = 2
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        sys.stderr.close()
        code = 0
    except OSError as error:
        click.echo(
            f"ceflpipe: {_format_os_error(error)}; what was finished is kept, run the same command to go on", err=True
        )
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
