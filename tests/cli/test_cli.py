"""The command line: help, exit codes, start-up time, and one clear line for bad input."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import click
import numpy as np
import pytest
from helpers.run_cli import ROOT, run_cli, run_cli_in_process
from helpers.video import panning, write_video

from ceflpipe.cache.errors import CeflError
from ceflpipe.pipeline.cli import COMMANDS, EXIT_CODES, cli, main
from ceflpipe.pipeline.paths import encoder_file

EXTRACT = ("extract", "--manifest", "mine.csv", "--encoder", "random", "--crop-size", 64)
HEAVY = ("torch", "cv2", "pandas", "h5py", "matplotlib")
"""Libraries that take too long to import for `ceflpipe --help`."""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, photographs, random_encoder):
    """A user's folder: twelve short videos of six subjects, a manifest, an encoder."""
    home = tmp_path_factory.mktemp("workdir")
    lines = ["path,label,subject,apex"]
    for i in range(12):
        frames = panning(photographs["astronaut"], 12, (224, 224), (100, 10), (100 + i, 20))
        write_video(home / "videos" / f"v{i}.mp4", frames)
        lines.append(f"videos/v{i}.mp4,{'Happy' if i % 2 else 'Sad'},S{i // 2},6")
    (home / "mine.csv").write_text("\n".join(lines) + "\n")
    (home / "artifacts" / "weights").mkdir(parents=True)
    shutil.copy(random_encoder, home / "artifacts" / "weights" / "random.safetensors")
    return home


@pytest.fixture(scope="module")
def trained(workdir):
    """The same folder after stage one and stage two."""
    run_cli(*EXTRACT, "--precision", "fp32", cwd=workdir, check=True)
    run_cli("train-heads", "--manifest", "mine.csv", "--folds", 3, "--epochs", 2, cwd=workdir, check=True)
    return workdir


def assert_refused(result, *messages, code=2):
    output = result.stderr + result.stdout
    assert result.returncode == code, output
    assert "Traceback" not in output
    for message in messages:
        assert message in output, output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    result = run_cli(command, "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout
    assert f"ceflpipe {command}" in result.stdout.replace("\n", " ")


def test_the_help_lists_every_command():
    result = run_cli("--help")
    assert all(f"  {command} " in result.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    "code",
    [
        "import ceflpipe.pipeline.config, ceflpipe.pipeline.commands.options",
        "from ceflpipe.pipeline.cli import cli; cli.main(['--help'], standalone_mode=False)",
        "from ceflpipe.pipeline.cli import cli; cli.main(['extract', '--help'], standalone_mode=False)",
        "from ceflpipe.pipeline.cli import cli; cli.main(['datasets'], standalone_mode=False)",
    ],
    ids=["config and options", "help", "help of a command", "datasets"],
)
def test_start_up_imports_no_heavy_library(code):
    code = f"import sys\n{code}\nprint('imported:', *(name for name in {HEAVY!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1].split() == ["imported:"]


def with_note(error):
    error.add_note("3 of 4 are kept.")
    return error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CeflError("x.csv: not a manifest"), 2, "ceflpipe: x.csv: not a manifest"),
        (click.exceptions.Abort(), 130, "ceflpipe: stopped. Run the same command again."),
        (KeyboardInterrupt(), 130, "ceflpipe: stopped. Run the same command again."),
        (with_note(KeyboardInterrupt()), 130, "ceflpipe: stopped. 3 of 4 are kept."),
        (MemoryError(), 2, "out of memory; use fewer --workers or less --memory. Run the same command again."),
        (OSError(errno.ENOSPC, "No space", "x.h5"), 2, "the disk is full (x.h5). Run the same command again."),
        (with_note(OSError("errno = 28, error message = 'No space'")), 2, "is full (while writing). 3 of 4 are kept."),
        (OSError(errno.EROFS, "Read-only file system", "x.h5"), 2, "x.h5: Read-only file system. Run the same"),
        (BrokenPipeError(), 0, ""),
        (SystemExit(1), 0, ""),  # what click makes of it
    ],
    ids=str,
)
def test_an_error_ends_in_one_line_and_an_exit_code(error, code, message, monkeypatch, capfd):
    def fail(**options):
        raise error

    monkeypatch.setattr(cli, "main", fail)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.FileIO(os.dup(2), "w"), write_through=True))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == bool(message)
    assert message in "".join(lines)


def test_a_fault_of_ours_keeps_its_traceback_and_says_where_to_report_it(monkeypatch, capfd):
    monkeypatch.setattr(cli, "main", lambda **options: {}["a key that is not there"])
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.FileIO(os.dup(2), "w"), write_through=True))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 3
    text = capfd.readouterr().err
    assert "Traceback" in text
    assert "KeyError: 'a key that is not there'" in text
    assert "Please report" in text.splitlines()[-1]


NOISY = """
import logging, os, signal, subprocess, sys, time, warnings
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from ceflpipe.pipeline import cli
def noise(**options):
    os.write(1, b"raw line of C\\n"), os.write(2, b"raw line of C\\n")
    subprocess.run([sys.executable, "-c", "import sys, warnings; print('raw'); warnings.warn('raw'); sys.exit('raw')"])
    warnings.warn("raw"), logging.getLogger("library").error("raw")
    print("our result"), print("our note", file=sys.stderr)
    {end}
cli.cli.main = noise
cli.main()
"""


@pytest.mark.parametrize(
    ("end", "code", "last"),
    [
        ("return 1", 1, "our note"),
        ("os.kill(os.getpid(), 2); time.sleep(9)", 130, "ceflpipe: stopped. Run the same command again."),
        ("os.kill(os.getpid(), 15); time.sleep(9)", 130, "ceflpipe: stopped. Run the same command again."),
    ],
    ids=["done", "SIGINT", "SIGTERM"],
)
def test_only_our_own_lines_are_printed(end, code, last):
    """Not those of libraries of C, of child processes, of warnings and of loggers; unless somebody wants to debug them."""
    command = [sys.executable, "-c", NOISY.replace("{end}", end)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (code, "our result\n")
    assert result.stderr.splitlines() == list(dict.fromkeys(["our note", last]))
    debug = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CEFLPIPE_DEBUG": "1"})
    assert "raw line of C" in debug.stderr


def test_the_documented_exit_codes_are_those_of_the_program():
    text = (ROOT / "docs/troubleshooting.md").read_text()
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text


def test_an_encoder_is_a_name_or_a_file():
    names = {
        "actors": "artifacts/weights/actors.safetensors",
        "fer.safetensors": "fer.safetensors",
        "models/fer": "models/fer",
    }
    assert {name: str(encoder_file(name)) for name in names} == names


def test_a_device_of_the_configuration_is_used_unless_another_is_given(workdir, monkeypatch):
    from ceflpipe.pipeline.commands.cmd_extract import _build_config
    from ceflpipe.pipeline.dataset import DatasetOptions

    monkeypatch.chdir(workdir)
    source = DatasetOptions("demo").resolve()
    config = source.config.model_copy(
        update={"extract": source.extract_config.model_copy(update={"device": "cuda:99"})}
    )
    source = replace(source, config=config)
    with pytest.raises(CeflError, match="cuda:99"):
        _build_config(source, {"encoder": "random", "device": None}, on_cluster=False)
    options = {"encoder": "random", "device": "cpu", "crop_size": None}
    assert _build_config(source, options, on_cluster=False).device == "cpu"


@pytest.mark.slow
def test_videos_of_your_own_from_manifest_to_report(trained):
    run = trained / "artifacts/runs/mine/random/cefl"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["videos"] == 12
    assert metrics["folds"] == 3
    assert metrics["locating_accuracy"]["videos"] == 12
    path = run_cli("report", "--manifest", "mine.csv", cwd=trained, check=True).stdout.strip()
    page = (trained / path).read_text()
    assert "default-src 'none'" in page  # scripts may contain addresses, but nothing may be fetched
    assert not re.findall(r'<(?:script|img|link|iframe)[^>]*(?:src|href)=["\']?https?:', page)
    output = run_cli("predict", "videos/v3.mp4", "--run", run, "--json", cwd=trained, check=True).stdout
    (prediction,) = json.loads(output)
    assert prediction["label"] in ("happiness", "sadness")
    assert prediction["frames"] == prediction["frames_with_face"] == 12
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert sum(weight for _, _, weight in prediction["intensity"]) == pytest.approx(1, abs=1e-4)


def test_metrics_can_be_computed_again_from_the_predictions(trained):
    """With pandas alone: accuracy per fold, its mean and both deviations."""
    import pandas as pd

    run = trained / "artifacts/runs/mine/random/cefl"
    table = pd.concat([pd.read_csv(f) for f in (run / "predictions").glob("*.csv")])
    metrics = json.loads((run / "metrics.json").read_text())
    war = (table.label == table.predicted).groupby(table.fold).mean()
    assert metrics["war"]["mean"] == pytest.approx(war.mean())
    assert metrics["war"]["std_ddof0"] == pytest.approx(war.std(ddof=0))
    assert metrics["war"]["std_ddof1"] == pytest.approx(war.std(ddof=1))
    assert sorted(table.id) == sorted(f"videos/v{i}" for i in range(12))
    p = table[["p_happiness", "p_sadness"]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(trained):
    run = trained / "artifacts/runs/mine/random/cefl"
    run_cli(
        "train-heads", "--manifest", "mine.csv", "--folds", 3, "--epochs", 2, "--out", "again", cwd=trained, check=True
    )
    for name in ("metrics.json", "history.csv", "weights.safetensors", "predictions/fold-1.csv"):
        assert (trained / "again" / name).read_bytes() == (run / name).read_bytes()


def test_check_counts_videos_labels_and_frames(workdir):
    result = run_cli("check", "--manifest", "mine.csv", cwd=workdir, check=True)
    assert "12 videos, 6 subjects" in result.stdout
    assert "144 in all" in result.stdout
    report = json.loads(run_cli("check", "--manifest", "mine.csv", "--json", cwd=workdir, check=True).stdout)
    assert report["labels"] == {"happiness": 6, "sadness": 6}


def test_extract_names_videos_and_subjects_that_the_list_has_twice(tmp_path, face_video, random_encoder):
    for name in "ab":
        shutil.copy(face_video, tmp_path / f"{name}.mp4")
    (tmp_path / "mine.csv").write_text("path,label,subject\na.mp4,fear,Anna\nb.mp4,anger,anna\n")
    command = ("extract", "--manifest", "mine.csv", "--encoder", random_encoder, "--input", "crops", "--crop-size", 32)
    printed = run_cli_in_process(*command, cwd=tmp_path, check=True).stdout
    warnings = json.loads(run_cli_in_process(*command, "--json", cwd=tmp_path, check=True).stdout)["warnings"]
    assert [line.split(",")[0] for line in warnings] == ["subjects Anna", "a.mp4"]
    assert "anna may be one person" in warnings[0]
    assert "b.mp4 have the same bytes but different labels" in warnings[1]
    assert all(f"warning: {line}\n" in printed for line in warnings)


def test_manifest_of_a_folder(workdir, tmp_path):
    for label in ("Happy", "sad"):
        (tmp_path / label).mkdir()
        shutil.copy(workdir / "videos/v0.mp4", tmp_path / label / "a.mp4")
    listing = run_cli("manifest", "--folder", tmp_path, cwd=workdir, check=True).stdout.strip()
    assert "Happy/a,Happy/a.mp4,happiness" in (tmp_path / "videos.csv").read_text()
    assert listing.endswith("videos.csv")
    assert run_cli("check", "--manifest", tmp_path / "videos.csv", cwd=workdir).returncode == 0


@pytest.mark.slow
def test_dry_run_and_failures_and_exit_codes(trained):
    dry = run_cli("extract", "--manifest", "mine.csv", "--encoder", "random", "--dry-run", cwd=trained)
    assert dry.returncode == 0
    assert "crop_size 64, now 224" in dry.stderr
    (trained / "broken.csv").write_text("path,label\nvideos/v0.mp4,fear\ngone.mp4,fear\n")
    broken = ("extract", "--manifest", "broken.csv", "--encoder", "random", "--crop-size", 64)
    result = run_cli(*broken, cwd=trained)
    assert_refused(result, "gone", "no such file", "1 of 2 videos failed", code=1)
    assert run_cli(*broken, "--max-failed", 0.5, cwd=trained).returncode == 0


BAD = {
    "unknown command": (["extarct"], ["did you mean extract"]),
    "data set not configured": (["extract", "--dataset", "dmeo"], ["did you mean demo", "known: "]),
    "data set not on disk": (
        ["extract", "--dataset", "demo", "--encoder", "random"],
        ["no folder data/demo", "ceflpipe demo", "--root"],
    ),
    "no such encoder": (
        ["extract", "--manifest", "mine.csv", "--encoder", "fer"],
        ["artifacts/weights/fer.safetensors", "ceflpipe encoder file:CHECKPOINT --name fer"],
    ),
    "both sources": (["extract", "--manifest", "mine.csv", "--dataset", "demo"], ["not both"]),
    "no such manifest": (["check", "--manifest", "missing.csv"], ["missing.csv: no such manifest"]),
    "no features yet": (
        ["train-heads", "--manifest", "mine.csv", "--features", "none.h5"],
        ["none.h5: no such feature cache"],
    ),
    "too many folds": (["train-heads", "--manifest", "mine.csv", "--folds", "50"], ["only 6 subjects", "--folds 6"]),
    "clips do not fit": (["train-heads", "--manifest", "mine.csv", "--clips", "11"], ["115 of 105 slots"]),
    "unknown head": (["train-heads", "--manifest", "mine.csv", "--head", "cefal"], ["did you mean cefl"]),
    "negative rate": (["train-heads", "--manifest", "mine.csv", "--lr", "-1"], ["learning_rate"]),
    "not a list of numbers": (
        ["sweep", "--manifest", "mine.csv", "--clips", "1,x"],
        ["--clips", "'x' is not a number"],
    ),
    "a value twice": (["ablate", "--manifest", "mine.csv", "--heads", "cefl,cefl"], ["--heads", "duplicate value"]),
    "not a run": (["predict", "videos/v0.mp4", "--run", "artifacts"], ["not a run folder"]),
    "not a video": (["predict", "mine.csv", "--run", "artifacts/runs/mine/random/cefl"], ["mine.csv: not a video"]),
    "no such video": (["predict", "missing.mp4", "--run", "artifacts/runs/mine/random/cefl"], ["no such file"]),
    "no such device": (
        ["extract", "--manifest", "mine.csv", "--encoder", "random", "--device", "cuda:9"],
        ["CUDA devices"],
    ),
    "unknown source of an encoder": (["encoder", "magic"], ["actors, imagenet, photographs:FOLDER, or file:PATH"]),
    "manifest of a manifest": (["manifest", "--manifest", "mine.csv"], ["is a manifest already"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(case, trained):
    arguments, messages = BAD[case]
    assert_refused(run_cli(*arguments, cwd=trained), *messages)


def test_unknown_config_key(trained, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/demo.yaml").write_text((ROOT / "configs/demo.yaml").read_text() + "trian: {}\n")
    assert_refused(run_cli("check", cwd=tmp_path), "configs/demo.yaml: unknown key trian; did you mean train?")
    (tmp_path / "configs/demo.yaml").write_text("title: x\nloader: demo\nroot: data\nextract: {crop_sise: 3}\n")
    assert_refused(run_cli("check", cwd=tmp_path), "unknown key extract.crop_sise; did you mean extract.crop_size?")
    (tmp_path / "configs/demo.yaml").write_text("title: !!python/object/apply:os.system ['touch hacked']\n")
    assert_refused(run_cli("check", cwd=tmp_path), "not valid YAML")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.slow
def test_a_cache_of_another_encoder_is_refused(trained, tmp_path, random_encoder):
    """The weights of the data set's encoder have changed since its features were extracted."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/mine.yaml").write_text(
        f"title: mine\nloader: csv_list\nroot: {trained}\ncv: {{folds: 3}}\n"
        "extract: {encoder: random, crop_size: 64}\n"
    )
    shutil.copy(trained / "mine.csv", trained / "videos.csv")
    weights = tmp_path / "artifacts/weights/random.safetensors"
    weights.parent.mkdir(parents=True)
    shutil.copy(random_encoder, weights)
    run_cli("extract", "--dataset", "mine", cwd=tmp_path, check=True)
    run_cli("train-heads", "--dataset", "mine", "--epochs", 1, cwd=tmp_path, check=True)
    from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder

    write_encoder(weights, resnet18_backbone().state_dict(), "random", "unit", {})
    assert_refused(
        run_cli("train-heads", "--dataset", "mine", "--epochs", 1, cwd=tmp_path),
        "extracted with other encoder weights",
        "ceflpipe extract --dataset mine",
    )
    assert_refused(
        run_cli("predict", trained / "videos/v0.mp4", "--run", "artifacts/runs/mine/random/cefl", cwd=tmp_path),
        "not the encoder this run was trained with",
    )


@pytest.mark.slow
def test_weights_of_the_wrong_shape(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    run = tmp_path / "run"
    shutil.copytree(trained / "artifacts/runs/mine/random/cefl", run)
    state = load_file(run / "weights.safetensors")
    save_file({k: v[:, :3].contiguous() for k, v in state.items()}, run / "weights.safetensors")
    predict = ("predict", "videos/v0.mp4", "--run", run)
    assert_refused(run_cli(*predict, cwd=trained), "weights.safetensors: checksum mismatch")
    import hashlib

    sums = run / "SHA256SUMS"
    digest = hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()
    lines = [line for line in sums.read_text().splitlines() if not line.endswith("weights.safetensors")]
    sums.write_text("\n".join([*lines, f"{digest}  weights.safetensors"]))
    assert_refused(run_cli(*predict, cwd=trained), "weights.safetensors: not the weights of this run's head")
