"""Command-line entry point: a click group whose commands are imported when they are used."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys

import click

from ..cache.errors import CeflError, did_you_mean, first_line

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
    """Group that imports a command's module when the command is used; lists them in the order of the pipeline."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f".commands.{COMMANDS[cmd_name]}", __package__).command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], list(COMMANDS))
            raise click.UsageError(f"{error.format_message().rstrip('.')}{hint}", ctx) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ceflpipe", prog_name="ceflpipe")
def cli() -> None:
    """Turn a folder of facial expression videos into trained CEFLNet heads and a report, with cached features.

    \b
    The whole pipeline on the synthetic demo data set, which needs no license and no download:
      ceflpipe demo                    render the videos
      ceflpipe encoder actors          train the frame encoder
      ceflpipe extract                 stage one: faces and features
      ceflpipe train-heads --folds 10  stage two: heads, cross-validated
      ceflpipe report                  one page with tables and figures

    `dvc repro` runs all of these, and later only what has changed.
    """


def main() -> None:
    """Run the command line and exit: 0 done, 1 done but some videos failed, 2 wrong input, 130 interrupted."""
    # torch's idle threads spin by default; next to any other busy process that makes each step up to 15 times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name on disk need not be text; in JSON this is its escape
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(standalone_mode=False)
    except CeflError as error:
        code = _fail(str(error))
    except click.exceptions.Abort:
        code = _fail("Interrupted. Finished work is kept; run the same command to resume.", 130)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MemoryError:
        code = _fail("out of memory. Finished work is kept; run the same command with fewer --workers to resume.")
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        sys.stderr.close()
        code = 0
    except OSError as error:
        code = _fail(f"{_format_os_error(error)}. Finished work is kept; run the same command to resume.")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int = 2) -> int:
    click.echo(f"ceflpipe: {message}", err=True)
    return code


def _format_os_error(error: OSError) -> str:
    """Return in one line what went wrong: a full disk, a read-only folder, a drive that is gone."""
    text = first_line(error)
    for number, reason in (
        (errno.ENOSPC, "the disk is full"),
        (errno.EFBIG, "the file would exceed the size limit of this process or file system"),
    ):
        if error.errno == number or f"errno = {number}" in text:  # HDF5 hides the number in its message
            return f"{reason} ({error.filename or 'while writing'})"
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else text
