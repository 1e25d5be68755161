"""`ceflpipe ablate --encoders`: heads on the features of several encoders, on the same videos, folds and seeds."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.run_cli import run_cli_in_process

from ceflpipe.cache.hdf5 import read_index, read_settings, read_video, write_videos
from ceflpipe.stages.heads.run_io import read_run
from ceflpipe.stages.manifest.manifest import write_manifest

pytestmark = pytest.mark.slow

WIDTHS = {"small": 64, "large": 96}
SHORT = ("--folds", 2, "--seeds", 2, "--epochs", 3, "--quiet")
CHOICE = ("--encoders", "small,large", "--heads", "mean,cefl")


@pytest.fixture
def home(tmp_path):
    manifest = fake_manifest(tmp_path)
    write_manifest(tmp_path / "mine.csv", manifest.entries)
    (tmp_path / "params.yaml").write_text("train: {warmup_epochs: 0, learning_rate: 0.01}\n")  # so that scores differ
    for seed, (name, width) in enumerate(WIDTHS.items()):
        cache = tmp_path / f"artifacts/features/mine/{name}.h5"
        fake_cache(cache, manifest, seed=seed, width=width, encoder=name, signal=10)
    return tmp_path


def ablate(home, *options, check=True):
    return run_cli_in_process("ablate", "--manifest", "mine.csv", *SHORT, *options, cwd=home, check=check)


def runs_of(home):
    return {
        (path.parts[-3], path.parts[-2]): read_run(path.parent)
        for path in (home / "artifacts/runs/mine").glob("*/*/run.json")
    }


def test_encoders_are_compared_on_the_same_folds_and_seeds(home):
    timing = {"frames": 9, "seconds": 1.0, "device": "cpu", "workers": 2}
    (home / "artifacts/features/mine/large.h5.timing.json").write_text(json.dumps({**timing, "encode_ms": 4.5}))
    (home / "artifacts/features/mine/small.h5.timing.json").write_text(json.dumps(timing))  # of an older version
    run_cli_in_process(
        "train-heads", "--manifest", "mine.csv", "--encoder", "large", "--head", "mean", *SHORT, cwd=home, check=True
    )
    written = (home / "artifacts/runs/mine/large/mean/run.json").stat().st_mtime_ns
    report = json.loads(ablate(home, *CHOICE, "--json").stdout)
    runs = runs_of(home)
    assert set(runs) == {(name, head) for name in WIDTHS for head in ("mean", "cefl")}
    assert (home / "artifacts/runs/mine/large/mean/run.json").stat().st_mtime_ns == written, (
        "the run of train-heads is used"
    )

    def protocol(run):
        return {
            key: run.config[key] for key in ("manifest_sha256", "folds", "models", "cv", "labels", "code", "train_only")
        }

    assert len({json.dumps(protocol(run), sort_keys=True) for run in runs.values()}) == 1
    for head in ("mean", "cefl"):
        assert runs["small", head].config["train"] == runs["large", head].config["train"]
    assert [(row["head"], row["encoder"], row["width"], row["encode_ms"]) for row in report["rows"]] == [
        (head, name, WIDTHS[name], {"large": 4.5}.get(name)) for head in ("mean", "cefl") for name in ("small", "large")
    ]
    for row in report["rows"]:  # the oracle: the predictions themselves
        scores = {
            name: runs[name, row["head"]].predictions().groupby(["seed", "fold"]).correct.mean().to_numpy(float)
            for name in WIDTHS
        }
        assert row["war"]["mean"] == pytest.approx(scores[row["encoder"]].mean())
        if row["encoder"] == "small":
            assert row["difference"] is None
            continue
        pairs = scores["large"] - scores["small"]
        assert np.abs(pairs).max() > 0
        difference = row["difference"]
        assert (difference["n"], difference["wins"], difference["losses"]) == (4, (pairs > 0).sum(), (pairs < 0).sum())
        assert difference["mean"] == pytest.approx(pairs.mean())
        assert difference["std_ddof1"] == pytest.approx(np.std(pairs, ddof=1))
    table = pd.read_csv(home / "artifacts/runs/mine/encoders.csv")
    assert len(table) == 2 * 2 * 4
    assert table[table.encoder == "small"].difference.eq(0).all()

    before = {run.path: (run.path / "run.json").stat().st_mtime_ns for run in runs.values()}
    text = ablate(home, *CHOICE).stdout
    assert all((path / "run.json").stat().st_mtime_ns == time for path, time in before.items()), "all are cached"
    rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines() if re.match(r" *(mean|cefl) {2,}", line)]
    assert [(row[1], row[2], row[3], row[-2]) for row in rows] == [
        ("small", "64", "18", "—"), ("large", "96", "18", "4.50"),
    ] * 2  # fmt: skip
    (home / "artifacts/runs/mine/encoders.csv").write_text("my notes")
    refused = ablate(home, *CHOICE, check=False)
    assert refused.returncode == 2
    assert (home / "artifacts/runs/mine/encoders.csv").read_text() == "my notes"


def remove_large(cache):
    cache.unlink()


def lose_a_video(cache):
    rewrite(cache, lambda videos: videos[1:])


def change_a_source(cache):
    rewrite(cache, lambda videos: [replace(videos[0], source_sha256="9" * 64), *videos[1:]])


def rewrite(cache, change):
    videos = [read_video(cache, name) for name in read_index(cache).id]
    write_videos(cache, change(videos), read_settings(cache))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove_large, r"no features of large for mine; make them with ceflpipe extract --manifest mine\.csv --encoder large$"),
        (lose_a_video, r"large\.h5: lacks 1 videos that .*small\.h5 has \(S0_anger\); .* ceflpipe extract .* --encoder large$"),
        (change_a_source, r"large\.h5: 1 videos are of other source files than those of .*small\.h5 \(S0_anger\); .*--verify$"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoders", ["small,large", "large,small"])
def test_caches_of_other_videos_are_refused_in_one_line_and_nothing_is_trained(home, damage, words, encoders):
    damage(home / "artifacts/features/mine/large.h5")
    if damage is change_a_source and encoders == "large,small":
        words = words.replace("large", "x").replace("small", "large").replace("x", "small")
    refused = ablate(home, "--encoders", encoders, check=False)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("ceflpipe:")]
    assert re.search(words, line), line
    assert refused.returncode == 2
    assert not (home / "artifacts/runs").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--encoders", "small"), "at least two encoders"),
        (("--encoders", "small,artifacts/weights/small.safetensors"), "at least two encoders|called the same"),
        (("--encoders", "small,large", "--out", "x"), "leave out --out"),
        (("--encoders", "small,large", "--encoder", "small"), "--encoder"),
    ],
)
def test_options_that_do_not_fit_are_refused(home, options, words):
    refused = ablate(home, *options, check=False)
    assert refused.returncode == 2
    assert re.search(words, refused.stderr)
