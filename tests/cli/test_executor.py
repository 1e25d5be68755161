"""Executors of local processes."""

import os
import signal
import subprocess
import sys
import time

from helpers.run_cli import ROOT

from ceflpipe.cache.processes import pid_alive
from ceflpipe.pipeline.executor import process_executor


def test_workers_that_are_kept_change_to_the_working_folder_of_each_call(tmp_path, monkeypatch):
    """Relative paths of tasks would otherwise lead into the folder of an earlier call."""
    pids = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        results = list(process_executor(2)(lambda _: (os.getpid(), os.getcwd()), range(4)))
        assert {cwd for _, cwd in results} == {str(folder)}
        pids.append({pid for pid, _ in results})
    assert pids[0] & pids[1], "the workers were kept"
    assert os.getpid() not in pids[0]


IDLE = """
import os, sys, time
from pathlib import Path
from ceflpipe.pipeline.executor import process_executor
print(*process_executor(1)(os.path.exists, ["/"]), flush=True)  # one task for two workers
time.sleep(600)
"""


def test_workers_that_never_had_a_task_end_with_a_killed_parent():
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    parent = subprocess.Popen([sys.executable, "-c", IDLE], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout.readline() == "True\n"
    children = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == parent.pid]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert len(children) >= 3, "two workers and joblib's process for what is left in memory"
    deadline = time.monotonic() + 60
    while any(map(pid_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(pid_alive, children))


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0
