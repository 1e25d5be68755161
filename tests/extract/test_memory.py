"""The memory of stage one does not grow by more than the features of a video."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FRAMES = 3200
RESIDENT = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.extractor import CropBatcher

batcher = CropBatcher(TorchEncoder(Path(sys.argv[1])), SimpleNamespace(align="resize", crop_size=64))
image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
features = []
for number in range(1, int(sys.argv[2]) + 1):
    batcher.add(image, None, features)
    if number in (320, int(sys.argv[2])):
        print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
batcher.flush()
print(len(features), len(np.unique(np.stack(features), axis=0)))
"""
"""Encodes the same face again and again; prints the resident memory in kB after ten batches and at the end."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of a process is read from /proc")
def test_features_of_a_long_video_hold_no_freed_memory(random_encoder):
    """Each array of an encoder, kept where it was allocated, held the memory freed around it: 10 to 25 KB a frame."""
    arguments = [sys.executable, "-c", RESIDENT, str(random_encoder), str(FRAMES)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
    early, late, features, different = (int(value) for value in done.stdout.split())
    assert (features, different) == (FRAMES, 1)
    assert late - early < 4 * (FRAMES - 320), f"{early} kB after 320 frames, {late} kB after {FRAMES}"
