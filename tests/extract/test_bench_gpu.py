"""The benchmark of a GPU machine, run with a processor in place of the GPU."""

import os
import re
import subprocess
import sys

import pytest
from helpers.run_cli import ROOT


@pytest.mark.slow
def test_the_benchmark_measures_every_part_the_whole_and_the_loop(tmp_path):
    command = [sys.executable, str(ROOT / "tests/bench/gpu.py"), "--device", "cpu", "--size", "640x480"]
    command += ["--frames", "24", "--videos", "2", "--workers", "2", "--repeats", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    speeds = {
        match[1].strip(): float(match[2]) for match in re.finditer(r"^  (.+): +(\d+\.\d) frames/s", done.stdout, re.M)
    }
    parts = (
        "decode",
        "detect, whole frames",
        "detect, around",
        "align",
        "encode, fp32, cpu",
        "ceflpipe, 1 x cpu",
        "the loop",
    )
    for part in parts:
        assert any(name.startswith(part) and value > 0 for name, value in speeds.items()), done.stdout
    ratio = float(re.search(r"ceflpipe is (\d+\.\d) times as fast as the loop", done.stdout)[1])
    whole, loop = (next(value for name, value in speeds.items() if name.startswith(part)) for part in parts[-2:])
    assert ratio == pytest.approx(whole / loop, rel=0.15, abs=0.1)
    assert "48 frames" in done.stdout
    assert not list(tmp_path.iterdir())
