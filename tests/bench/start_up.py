"""How long commands take that a person waits for: python tests/bench/start_up.py [--rounds 5]

Each is a process of its own: the import of ceflpipe, the help of the program and of two commands, and `predict` on a clip of
2.4 seconds with the run that comes with the package. Seconds on the clock and of processor time, the median (lowest), after
one round that fills the page cache. Beside them what nothing can save: Python with torch imported. With ONEDNN_MAX_CPU_ISA=AVX2
torch and OpenVINO compute as on a processor without bfloat16.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_videos import write_videos

FPS, SECONDS = 25, 2.4
PROGRAM = [sys.executable, "-m", "ceflpipe.pipeline"]


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Return the seconds on the clock and of processor time that a process takes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = write_videos(folder, (640, 480), round(FPS * SECONDS))[0]
        commands = {
            "python -c 'import ceflpipe'": [sys.executable, "-c", "import ceflpipe"],
            "ceflpipe --help": [*PROGRAM, "--help"],
            "ceflpipe extract --help": [*PROGRAM, "extract", "--help"],
            "ceflpipe predict --help": [*PROGRAM, "predict", "--help"],
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
            "ceflpipe predict clip.mp4": [*PROGRAM, "predict", str(clip)],
        }
        seconds = {
            title: [measure(command, folder) for _ in range(rounds + 1)][1:] for title, command in commands.items()
        }
    print(f"ONEDNN_MAX_CPU_ISA={os.environ.get('ONEDNN_MAX_CPU_ISA', '')}, load {os.getloadavg()[0]:.1f}")
    print("| | clock, s | processor, s |\n|---|---|---|")
    for title, rows in seconds.items():
        cells = (f"{statistics.median(column):.2f} ({min(column):.2f})" for column in zip(*rows, strict=True))
        print(f"| `{title}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
