"""The run that comes with the package: it is whole, of the encoder that comes with it, and names a real smile."""

import json

import pytest
from helpers.run_cli import run_cli

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.pipeline.paths import encoder_file, find_run
from ceflpipe.stages.heads.run_io import read_run, verify_run

MAX_BYTES = 6_000_000


def test_the_run_is_whole_and_of_this_encoder():
    run = read_run(find_run("faces"))
    assert verify_run(run.path)
    assert sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file()) <= MAX_BYTES
    assert run.extraction_settings.encoder_sha256 == sha256_of(encoder_file("faces"))
    assert {"neutral", "happiness"} <= set(run.labels)
    assert "/" not in run.config["dataset"]


@pytest.mark.slow
def test_a_smile_is_named_right_after_installing(face_video, tmp_path):
    done = run_cli("predict", face_video, "--json", cwd=tmp_path, check=True)
    (record,) = json.loads(done.stdout)
    assert record["label"] == "happiness"
    assert not list(tmp_path.iterdir())
    shown = run_cli("predict", face_video, cwd=tmp_path, check=True)
    assert "by faces: 1 model of cefl" in shown.stderr
    assert "right in 76.60 % of 1,000 held-out videos" in shown.stderr
    assert "calibration error 2.9 % (without calibration 5.1 %) on 1,000 held-out predictions" in shown.stderr
