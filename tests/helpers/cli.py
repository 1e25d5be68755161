"""Run commands and edit files as a user does."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from ceflpipe.pipeline.cli import main

ROOT = Path(__file__).resolve().parents[2]


def run_cli(
    *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, check: bool = False
) -> subprocess.CompletedProcess:
    """Run ceflpipe as a user does: another process, this Python."""
    return subprocess.run(
        [sys.executable, "-m", "ceflpipe.pipeline", *map(str, arguments)],
        cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=check, timeout=600,
    )  # fmt: skip


def on_path(**variables: str) -> dict[str, str]:
    """Return an environment in which `ceflpipe` and `dvc` are those of this Python."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}


def change(path: Path, pattern: str, text: str) -> None:
    """Replace what a regular expression finds in a file; it must be there."""
    content, count = re.subn(pattern, text, path.read_text())
    assert count, f"{path}: nothing like {pattern}"
    path.write_text(content)


def run_here(*arguments: object, cwd: Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Do what support.run_cli does, without another process."""
    command = ["ceflpipe", *map(str, arguments)]
    before, typed = Path.cwd(), sys.argv
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        os.chdir(cwd)
        sys.argv = command
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os.chdir(before)
        sys.argv = typed
    done = subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
    assert not check or code == 0, done
    return done
