"""Command-line entry point: a click group whose commands are imported when they are used."""

from __future__ import annotations

import errno
import faulthandler
import importlib
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from typing import Any

import click

from ..cache.errors import CeflError, did_you_mean, first_line

COMMANDS = {
    "demo": "cmd_demo",
    "manifest": "cmd_manifest",
    "check": "cmd_check",
    "datasets": "cmd_datasets",
    "config": "cmd_config",
    "encoder": "cmd_encoder",
    "extract": "cmd_extract",
    "crops": "cmd_crops",
    "compose": "cmd_compose",
    "merge-shards": "cmd_merge_shards",
    "inspect": "cmd_inspect",
    "train-heads": "cmd_train_heads",
    "train-end-to-end": "cmd_train_end_to_end",
    "sweep": "cmd_sweep",
    "ablate": "cmd_ablate",
    "complexity": "cmd_complexity",
    "predict": "cmd_predict",
    "report": "cmd_report",
    "export": "cmd_export",
    "push": "cmd_push",
    "pull": "cmd_pull",
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
      ceflpipe extract                 stage one: faces and features
      ceflpipe train-heads --folds 10  stage two: heads, cross-validated
      ceflpipe report                  one page with tables and figures

    `dvc repro` runs all of these, and later only what has changed.
    """


EXIT_CODES = {
    0: "done",
    1: "done, but some videos failed: each is listed with its reason",
    2: "not done: wrong input, or something this machine does not have (a full disk, no rights, a missing package)",
    3: "not done: a fault of ceflpipe, with a traceback to report",
    130: "stopped by Ctrl-C or by a termination signal",
}
"""Exit codes of every command."""
REPORT_FAULT = (
    "the lines above are a fault of ceflpipe, not of your input. Please report them, with the command and the version "
    "(ceflpipe --version), in the issues of ceflpipe's repository"
)


def main() -> None:
    """Run the command line and exit with one of EXIT_CODES."""
    # torch's idle threads spin by default; next to any other busy process that makes each step up to 15 times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    separate_library_output()
    code: Any = 0
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except CeflError as error:
        code = _fail(str(error))
    except (click.exceptions.Abort, KeyboardInterrupt) as error:  # click turns the second into the first
        code = _fail(f"stopped. {_what_is_kept(error)}", 130)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except MemoryError as error:
        code = _fail(f"out of memory; use fewer --workers or less --memory. {_what_is_kept(error)}")
    except (BrokenPipeError, SystemExit):  # the reader of our output went away, e.g. `| head`; click and rich exit then
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end
    except OSError as error:
        code = _fail(f"{_format_os_error(error)}. {_what_is_kept(error)}")
    except Exception:
        traceback.print_exc()
        code = _fail(REPORT_FAULT, 3)
    sys.exit(code if isinstance(code, int) else 0)


def separate_library_output() -> None:
    """Keep standard output and standard error for our own words.

    Libraries of C and worker processes write to file descriptors 1 and 2: what they write is dropped, and ours goes to copies
    of them. Warnings and logs of Python libraries are dropped too. CEFLPIPE_DEBUG=1 shows everything. Has no effect on
    streams that are not those the process was started with.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name on disk need not be text; in JSON this is its escape
        sys.stdout.reconfigure(errors="backslashreplace")
    if os.environ.get("CEFLPIPE_DEBUG"):
        return
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of workers
    logging.getLogger().addHandler(logging.NullHandler())
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__"):
            continue
        stream.flush()
        buffering = 1 if name == "stderr" or stream.isatty() else -1
        ours = open(os.dup(descriptor), "w", buffering, encoding=stream.encoding, errors="backslashreplace")  # noqa: SIM115 - to the end
        setattr(sys, name, ours)
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), descriptor)
        if name == "stderr":
            faulthandler.enable(ours)
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job queue stops a job as Ctrl-C would


def _what_is_kept(error: BaseException) -> str:
    """Return what the interrupted computation said about its finished work (see console.kept_on_interruption)."""
    notes = [note for e in (error, error.__cause__, error.__context__) if e for note in getattr(e, "__notes__", ())]
    return notes[0] if notes else "Run the same command again."


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
