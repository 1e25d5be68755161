"""How is a command run in the test's own process, where importing torch again and again would take most of the time?"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from ceflpipe.pipeline.cli import main


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
