"""Run commands and edit files as a user would."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ceflpipe.pipeline.cli import main

ROOT = Path(__file__).resolve().parents[2]


def run_cli(
    *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, check: bool = False
) -> subprocess.CompletedProcess:
    """Run ceflpipe as a user would: in another process, with this Python."""
    return subprocess.run(
        [sys.executable, "-m", "ceflpipe.pipeline", *map(str, arguments)],
        cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=check, timeout=600,
    )  # fmt: skip


def env_with_path(**variables: str) -> dict[str, str]:
    """Return an environment whose `ceflpipe` and `dvc` are those of this Python."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables}


def replace_in_file(path: Path, pattern: str, text: str) -> None:
    """Replace every match of a regular expression in a file; raises AssertionError without a match."""
    content, count = re.subn(pattern, text, path.read_text())
    assert count, f"{path}: no match of {pattern}"
    path.write_text(content)


def make_workspace(home: Path, name: str, encoder: Path, **changes: str) -> Path:
    """Create the working folder of a user: an encoder, and the configuration of a data set with small crops.

    ``changes`` are regular expressions and their replacements in the configuration; each must match.
    """
    (home / "artifacts/weights").mkdir(parents=True)
    shutil.copy(encoder, home / "artifacts/weights/random.safetensors")
    (home / "configs").mkdir()
    config = Path(shutil.copy(ROOT / f"configs/{name}.yaml", home / "configs"))
    # a few rendered actors play all the subjects
    leaks = {r"cv: \{": "cv: {allow_leaks: true, "}
    for pattern, text in {r"encoder: faces": "encoder: random, crop_size: 64", **leaks, **changes}.items():
        replace_in_file(config, pattern, text)
    return home


def run_cli_in_process(*arguments: object, cwd: Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Do the same as run_cli in this process, which is faster."""
    command = ["ceflpipe", *map(str, arguments)]
    old_cwd, old_argv = Path.cwd(), sys.argv
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        os.chdir(cwd)
        sys.argv = command
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os.chdir(old_cwd)
        sys.argv = old_argv
    done = subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
    assert not check or code == 0, done
    return done
