"""No command loses a file of the user's, wherever an output points: every output option of every command is tried."""

from __future__ import annotations

import os
import shutil

import click
import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers.run_cli import run_cli_in_process
from helpers.video import panning, write_video

from ceflpipe.cache import hdf5, ownership
from ceflpipe.cache.atomic import sha256_of
from ceflpipe.pipeline import executor, training
from ceflpipe.pipeline.cli import COMMANDS, cli
from ceflpipe.pipeline.commands import cmd_extract
from ceflpipe.pipeline.commands.cmd_encoder import SUBCOMMANDS
from ceflpipe.pipeline.commands.options import OutputPath
from ceflpipe.stages.demo import demo_dataset
from ceflpipe.stages.encoder import build, photograph_crops, synthetic, train_photographs
from ceflpipe.stages.encoder.weights import resnet18_backbone
from ceflpipe.stages.extract.encoder_torch import TorchEncoder
from ceflpipe.stages.extract.retinaface import RetinaFace
from ceflpipe.stages.extract.video_reader import VideoReader
from ceflpipe.stages.heads import cross_validation
from ceflpipe.stages.heads.run_io import Run
from ceflpipe.stages.report.writer import ReportWriter

SHORT = ("--clips", 1, "--frames", 1, "--epochs", 1, "--folds", 2, "--quiet")
LIST = ("--manifest", "data/list.csv")
ARGUMENTS = {
    "demo": ("--subjects", 2, "--workers", 1, "--quiet"),
    "manifest": ("--dataset", "posed"),
    "config": ("--dataset", "posed"),
    "encoder": ("file:data/old.pth", "--quiet"),
    "extract": (*LIST, "--encoder", "random", "--input", "crops", "--crop-size", 32, "--workers", 1, "--quiet"),
    "merge-shards": (*LIST, "--encoder", "random"),
    "inspect": ("artifacts/features/list/random.h5", *LIST, "--num-videos", 2, "--quiet"),
    "train-heads": (*LIST, "--head", "mean", *SHORT),
    "train-end-to-end": (*LIST, "--encoder", "random", "--head", "mean", "--dry-run", "--quiet"),
    "sweep": (*LIST, "--heads", "mean", "--workers", 1, *SHORT),
    "ablate": (*LIST, "--heads", "mean", "--workers", 1, *SHORT[4:]),
    "predict": ("data/posed/happy/v0.mp4", "--run", "artifacts/runs/list/random/mean", "--input", "crops", "--quiet"),
    "report": (*LIST, "--run", "artifacts/runs/list/random/mean", "--quiet"),
    "export": ("artifacts/runs/list/random/mean", "--onnx", "--quiet"),
    "pull": ("lab/net", "--quiet"),
}
"""What a command with an output needs besides it; a new command with an output needs a line here."""
WITHOUT_OUTPUT_OPTION = {
    "check": "the manifest of a data set that has none",
    "compose": "a manifest and a feature cache, by its --name",
    "crops": "a crop cache, by the data set and the size",
    "datasets": "nothing",
    "complexity": "nothing",
    "push": "nothing on this machine",
}
INPUTS = {
    "manifest", "root", "folder", "photographs", "cache", "features", "init", "run_path", "run_paths", "cv_run", "ablation", "sweep",
    "videos", "encoder", "detector", "detections", "source", "card", "checkpoint", "identity_network", "people",
}  # fmt: skip
VALUES = {
    "dataset", "device", "cluster", "dask_resource", "head", "license_text", "shard", "region", "name", "names", "input_name",
    "output_name", "score", "revision", "file", "formats", "fold", "repository", "checksum", "message",
}  # fmt: skip
"""Parameters that take text and name no file to write; the name of an encoder decides one, and is tried below."""
OWN_INPUTS = {
    "manifest": ("video", "link to the video", "hard link to the video"),
    "config": ("configuration",),
    "encoder": ("checkpoint",),
    "inspect": ("cache", "list", "video", "link to the video", "hard link to the video"),
    "predict": ("video", "link to the video", "hard link to the video", "encoder", "part of the run"),
}
"""Inputs of commands with --force that write files: not even that replaces them."""
SHARED_FOLDERS = {"demo", "sweep", "ablate", "predict"}
"""Commands that write into a folder beside what is in it; others replace a folder as a whole."""


def outputs():
    context = click.Context(cli)
    for name in cli.list_commands(context):
        for parameter in cli.get_command(context, name).params:
            if isinstance(parameter.type, OutputPath):
                yield name, parameter


OUTPUTS = list(outputs())


@pytest.fixture(scope="module", autouse=True)
def _without_slow_work():
    """Nothing here depends on what the demo's frames show, and starting a worker process takes longer than its work."""

    def build_executor(*arguments, **options):
        return map

    with pytest.MonkeyPatch.context() as patch:
        for module in (executor, cmd_extract, training):
            patch.setattr(module, "process_executor", build_executor)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr(demo_dataset, "make_actor", lambda number: None)
        patch.setattr(demo_dataset, "render_frame", lambda *rest: (np.zeros((rest[-1], rest[-1], 3), np.uint8), None))
        yield


WORK = {
    "frames are read": (VideoReader, "frames"),
    "the encoder is loaded": (TorchEncoder, "__init__"),
    "the detector is loaded": (RetinaFace, "__init__"),
    "a cache is written": (hdf5, "_create_file"),
    "heads are trained": (cross_validation, "train"),
    "heads are loaded": (Run, "head"),
    "a figure is drawn": (ReportWriter, "add_figure"),
    "a video is rendered": (demo_dataset, "render_video"),
    "a checkpoint is converted": (build, "from_checkpoint"),
    "faces are rendered": (synthetic, "render_faces"),
    "photographs are cropped": (photograph_crops, "prepare_crops"),
    "photographs are cropped for an encoder": (train_photographs, "prepare_crops"),
}
"""What commands do that takes long, and the one place where each begins."""


@pytest.fixture(scope="module", autouse=True)
def begun(_without_slow_work):
    """The work that has begun, in the words of WORK."""
    begun: list[str] = []

    def recorded(text, function):
        def call(*arguments, **options):
            begun.append(text)
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for text, (owner, name) in WORK.items():
            patch.setattr(owner, name, recorded(text, getattr(owner, name)))
        yield begun


@pytest.fixture(scope="module")
def home(tmp_path_factory, photographs, random_encoder):
    """A working folder with inputs of all commands, and with files of the user's."""
    home = tmp_path_factory.mktemp("outputs")
    lines = ["path,label,subject"]
    for i in range(6):
        label = ("happy", "sad")[i % 2]
        frames = panning(photographs["astronaut"], 4, (64, 64), (180 + i, 60), (200, 60))
        write_video(home / f"data/posed/{label}/v{i}.mp4", frames)
        lines.append(f"posed/{label}/v{i}.mp4,{label},S{i}")
    (home / "data/list.csv").write_text("\n".join(lines) + "\n")
    torch.save(resnet18_backbone().state_dict(), home / "data/old.pth")
    (home / "artifacts/weights").mkdir(parents=True)
    shutil.copy(random_encoder, home / "artifacts/weights/random.safetensors")
    (home / "configs").mkdir()
    dataset = {
        "title": "Posed", "loader": "folders", "root": "data/posed", "labels": ["happiness", "sadness"],
        "cv": {"fold_scheme": "stratified", "folds": 2}, "extract": {"encoder": "random", "crop_size": 32, "input": "crops"},
    }  # fmt: skip
    demo = {
        "title": "Demo", "loader": "demo", "root": "data/demo", "demo": {"size": 96, "num_frames": [24, 24]},
        "labels": ["anger", "disgust", "fear", "happiness", "sadness", "surprise"],
    }  # fmt: skip
    for name, content in (("posed", dataset), ("demo", demo)):
        (home / f"configs/{name}.yaml").write_text(yaml.safe_dump(content))
    run(home, "extract", check=True)
    run(home, "train-heads", check=True)
    (home / "user/thesis/chapters").mkdir(parents=True)
    (home / "user/thesis/chapters/1.tex").write_text("years of work")
    (home / "user/notes.txt").write_text("my notes")
    (home / "user/link.txt").symlink_to("notes.txt")
    (home / "user/linked").symlink_to("thesis")
    (home / "user/video.mp4").symlink_to("../data/posed/happy/v0.mp4")
    os.link(home / "data/posed/happy/v0.mp4", home / "user/hard.mp4")
    return home


def run(home, command, *arguments, check=False):
    return run_cli_in_process(command, *ARGUMENTS[command], *arguments, cwd=home, check=check)


def targets(home):
    return {name: home / path for name, path in {
        "my file": "user/notes.txt",
        "link to my file": "user/link.txt",
        "my folder": "user/thesis",
        "link to my folder": "user/linked",
        "inside my folder": "user/thesis/new.out",
        "below my file": "user/notes.txt/x.out",
        "no rights": "/proc/x/x.out",
        "video": "data/posed/happy/v0.mp4",
        "link to the video": "user/video.mp4",
        "hard link to the video": "user/hard.mp4",
        "folder of the videos": "data/posed/happy",
        "list": "data/list.csv",
        "checkpoint": "data/old.pth",
        "configuration": "configs/posed.yaml",
        "encoder": "artifacts/weights/random.safetensors",
        "cache": "artifacts/features/list/random.h5",
        "run": "artifacts/runs/list/random/mean",
        "part of the run": "artifacts/runs/list/random/mean/run.json",
        "working folder": ".",
    }.items()}  # fmt: skip


class Snapshot:
    """The files, links and folders of a folder."""

    def __init__(self, home):
        self._home = home
        self._stamps = {path: path.lstat() for path in home.rglob("*")}
        self._contents = {path: self._content(path) for path in self._stamps}

    def _content(self, path):
        if path.is_symlink():
            return os.readlink(path)
        return sha256_of(path) if path.is_file() else "folder"

    def lost(self):
        """Return what is gone or has changed."""
        return [str(path.relative_to(self._home)) for path in self._contents if self._has_changed(path)]

    def _has_changed(self, path):
        if not os.path.lexists(path):
            return True
        now, before = path.lstat(), self._stamps[path]
        if (now.st_ino, now.st_mtime_ns, now.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size):
            return False
        return self._content(path) != self._contents[path]

    def new(self):
        """Return what was not there, but for the names that lists have taken, which stay theirs."""
        new = [path.relative_to(self._home) for path in sorted(self._home.rglob("*")) if path not in self._contents]
        return [str(path) for path in new if not path.is_relative_to("artifacts/names")]

    def remove_new(self):
        for path in sorted(self._home.rglob("*"), reverse=True):
            if path not in self._contents:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def is_one_line(done):
    lines = [line for line in done.stderr.splitlines() if line.startswith(("ceflpipe:", "Error:"))]
    return len(lines) == 1 and "Traceback" not in done.stderr


def problems_at(home, before, begun, name, target, *arguments):
    """Run a command that writes at a target, and return what is wrong with that; whether it was refused comes with it.

    A command that refuses has not begun to work, and has written nothing.
    """
    if name == "merge-shards" and target.parent.is_dir() and os.access(target.parent, os.W_OK):
        shard = target.with_name(f"{target.stem}.shard-1-of-1{target.suffix}")
        if not str(shard).startswith("/proc"):
            shutil.copy(home / "artifacts/features/list/random.h5", shard)
    existing = set(before.new())
    begun.clear()
    done = run(home, name, *arguments)
    problems = [f"lost {path}" for path in before.lost()]
    if done.returncode == 2:
        problems += [f"refused after {text}" for text in begun]
        problems += [f"refused, and wrote {path}" for path in before.new() if path not in existing]
    if done.returncode not in (0, 2):
        problems.append(f"exit code {done.returncode}: {done.stderr}")
    if done.returncode == 2 and not is_one_line(done):
        problems.append(f"not one clear line: {done.stderr}")
    before.remove_new()
    return problems, done.returncode == 2


@pytest.mark.parametrize(("name", "parameter"), OUTPUTS, ids=[f"{name} {p.opts[0]}" for name, p in OUTPUTS])
def test_nothing_is_lost_wherever_an_output_points(home, begun, name, parameter):
    before, problems = Snapshot(home), []
    is_folder = parameter.type.name == "folder"
    allowed = {"inside my folder"}  # nothing of the user's is there
    if is_folder and name in SHARED_FOLDERS:
        allowed |= {"my folder", "link to my folder", "folder of the videos", "run", "working folder"}
    # finished work of ours, which is kept as it is
    allowed |= {"extract": {"cache"}, "merge-shards": {"cache"}, "encoder": {"encoder"}}.get(name, set())
    for kind, target in targets(home).items():
        if (
            name in ("train-heads", "train-end-to-end") and kind == "run"
        ):  # that is its own output, which it may replace
            continue
        new_problems, refused = problems_at(home, before, begun, name, target, parameter.opts[0], target)
        problems += [f"{kind}: {problem}" for problem in new_problems]
        if not refused and kind not in allowed:
            problems.append(f"{kind}: not refused")
    assert not problems, "\n".join(problems)


FORCED = [(name, p) for name, p in OUTPUTS if name in OWN_INPUTS and p.type.name == "file"]


@pytest.mark.parametrize(("name", "parameter"), FORCED, ids=[name for name, _ in FORCED])
def test_an_input_is_refused_also_with_force(home, begun, name, parameter):
    before, problems = Snapshot(home), []
    for kind in OWN_INPUTS[name]:
        target = targets(home)[kind]
        new_problems, refused = problems_at(home, before, begun, name, target, parameter.opts[0], target, "--force")
        problems += [f"{kind}: {problem}" for problem in new_problems]
        if not refused:
            problems.append(f"{kind}: not refused")
    assert not problems, "\n".join(problems)


def test_every_parameter_is_an_input_an_output_or_no_path():
    context, unknown = click.Context(cli), []
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    for name, command in (*commands.items(), *SUBCOMMANDS.items()):
        for parameter in command.params:
            is_text = type(parameter.type) in (click.types.StringParamType, click.Path)
            if is_text and not getattr(parameter, "is_flag", False) and parameter.name not in INPUTS | VALUES:
                unknown.append(f"{name} {parameter.name}")
            assert not isinstance(parameter.type, click.File), "it is opened, and emptied, before any check"
            if isinstance(parameter.type, click.Path) and not isinstance(parameter.type, OutputPath):
                assert parameter.name in INPUTS, f"{name} {parameter.name}: an output is OUT_FILE or OUT_FOLDER"
    assert not unknown, f"say in this file whether these name files: {unknown}"
    assert set(COMMANDS) == {name for name, _ in OUTPUTS} | set(WITHOUT_OUTPUT_OPTION)


DEFAULTS = {
    "demo": ("data/demo/videos.csv", "data/demo/videos/S01/S01_anger.mp4", "data/demo/demo.json"),
    "manifest": ("artifacts/manifests/posed.csv", "artifacts/manifests/posed.csv.settings.json"),
    "encoder": ("artifacts/weights/old.safetensors",),
    "merge-shards": ("artifacts/features/list/random.h5",),
    "compose": ("artifacts/manifests/new.csv", "artifacts/features/new/random.h5"),
    "sweep": ("artifacts/sweeps/list/random/sweep.csv", "artifacts/sweeps/list/random/runs/mean-n1-k1/x"),
    "ablate": ("artifacts/runs/list/random/ablate/ablation.csv", "artifacts/runs/list/random/ablate/mean/x"),
    "report": ("artifacts/reports/list/x",),
}
DERIVED = {
    "extract": tuple(
        f"artifacts/features/list/random.h5.{ending}" for ending in ("timing.json", "sources.json", "lock", "parts", "lock/x")
    ),
    "train-heads": (
        "artifacts/runs/list/random/mean/x", "artifacts/runs/list/random/mean.lock", "artifacts/runs/list/random/.mean.unfinished",
        "artifacts/runs/list/random/.mean.unfinished/key.json",
    ),
    "merge-shards": ("artifacts/features/list/random.h5.lock",),
    "compose": ("artifacts/features/new/random.h5.photographs", "artifacts/features/new/random.h5.photographs/crops.npy"),
    "check": ("artifacts/manifests/posed.csv.settings.json", "artifacts/manifests/.ceflpipe.sha256"),
    "manifest": ("artifacts/manifests/.ceflpipe.sha256",),
    "encoder": ("artifacts/weights/photographs.safetensors.training/crops.npy", "artifacts/weights/photographs.safetensors.training"),
}  # fmt: skip
"""Names that a command makes from that of its output."""
OTHER_ARGUMENTS = {
    "check": ("--dataset", "posed"),
    "compose": ("photographs:photographs", "--encoder", "random", "--name", "new", "--videos", 2, "--quiet"),
    "extract": (*ARGUMENTS["extract"], "--redo"),
    "train-heads": (*ARGUMENTS["train-heads"], "--seed", 7),
    ("encoder", "derived"): ("photographs:photographs", "--epochs", 1, "--crop-size", 32, "--quiet"),
}


def write_photographs(home):
    for label in ("happy", "sad"):
        for number in range(4):
            image = home / f"photographs/{label}/{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), np.full((48, 48, 3), number, np.uint8))


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        (name, path, kind)
        for kind, table in (("default", DEFAULTS), ("derived", DERIVED))
        for name, paths in table.items()
        for path in paths
    ],
)
def test_a_file_of_the_user_where_a_command_writes_by_itself_is_refused(home, begun, name, path, kind):
    path = home / path
    previous = path.read_bytes() if path.is_file() else None
    complete = Snapshot(home)
    if name == "merge-shards":
        shutil.copy(home / "artifacts/features/list/random.h5", home / "artifacts/features/list/random.shard-1-of-1.h5")
    if (kind, name) == ("derived", "encoder") or name == "compose":
        write_photographs(home)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("my notes")
        if path.suffix == ".lock":  # so old that a lock of ours would be one of a process that has died
            os.utime(path, (0, 0))
        before = Snapshot(home)
        begun.clear()
        arguments = OTHER_ARGUMENTS.get((name, kind)) or OTHER_ARGUMENTS.get(name) or ARGUMENTS[name]
        done = run_cli_in_process(name, *arguments, cwd=home)
        assert not before.lost()
        assert (done.returncode, is_one_line(done)) == (2, True), done
        assert (begun, before.new()) == ([], [])
    finally:
        if previous is not None:
            path.write_bytes(previous)
        complete.remove_new()
    assert not complete.lost()


def test_files_of_the_user_among_part_files_stay(home):
    complete = Snapshot(home)
    parts = home / "artifacts/features/list/random.h5.parts"
    parts.mkdir()
    for name in ("notes.partial", "big.started", "big.stalled", "data.h5", ".notes.7.partial"):
        (parts / name).write_text("my notes")
    before = Snapshot(home)
    done = run(home, "extract", "--verify")
    assert (done.returncode, before.lost()) == (0, []), done
    complete.remove_new()


def test_files_that_are_put_aside_get_names_that_are_free(home):
    complete = Snapshot(home)
    cache = home / "artifacts/features/other.h5"
    cache.write_bytes((home / "artifacts/features/list/random.h5").read_bytes()[:5000])
    cache.with_name("other.h5.corrupted-1").write_text("years of work")
    content = cache.read_bytes()
    done = run(home, "extract", "--out", cache)
    assert done.returncode == 0, done
    assert cache.with_name("other.h5.corrupted-1").read_text() == "years of work"
    assert cache.with_name("other.h5.corrupted-2").read_bytes() == content
    complete.remove_new()


def test_a_cache_that_was_extracted_is_not_replaced_by_a_composed_one(home):
    before = Snapshot(home)
    write_photographs(home)
    arguments = ("photographs:photographs", "--encoder", "random", "--name", "list", "--videos", 2, "--quiet")
    done = run_cli_in_process("compose", *arguments, cwd=home)
    assert (done.returncode, is_one_line(done), before.lost()) == (2, True, []), done
    assert "list/random.h5: exists" in done.stderr
    before.remove_new()


SMALL_OUTPUTS = {
    "push": "nothing",
    "pull": "what a repository says it has, which is read first; tests/cli/test_sharing.py",
    "check": "a manifest",
    "config": "a configuration",
    "datasets": "nothing",
    "complexity": "nothing",
    "crops": "what extract does too, after it has loaded the detector; tests/extract/test_crops.py",
    "train-end-to-end": "the crops first",
}
"""Commands that ask for no more than the least of room."""
SPACE_ARGUMENTS = {
    "encoder": (("file:data/old.pth",), ("photographs:photographs", "--crop-size", 32), ("actors",)),
    "inspect": ((*ARGUMENTS["inspect"], "--contact-sheet", "sheet.png"),),
    "predict": ((*ARGUMENTS["predict"], "--out", "results"), (*ARGUMENTS["predict"], "--csv", "results.csv")),
    "extract": ((*ARGUMENTS["extract"], "--out", "new/features.h5"),),
    "train-heads": ((*ARGUMENTS["train-heads"], "--seed", 7, "--out", "new/run"),),
    "compose": (OTHER_ARGUMENTS["compose"],),
}
"""Arguments with which a command has something to write; those of ARGUMENTS for others."""


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - set(SMALL_OUTPUTS)))
def test_a_disk_without_free_space_is_refused_before_work_begins(home, begun, name, monkeypatch):
    """Each command says how much it needs: with the least of room that is always asked for set to nothing."""
    complete = Snapshot(home)
    write_photographs(home)
    if name == "merge-shards":
        shutil.copy(home / "artifacts/features/list/random.h5", home / "artifacts/features/list/random.shard-1-of-1.h5")
    before = Snapshot(home)
    usage = shutil.disk_usage(home)
    monkeypatch.setattr(ownership, "MIN_FREE_BYTES", 0)
    monkeypatch.setattr(ownership.shutil, "disk_usage", lambda path: usage._replace(free=500))
    for arguments in SPACE_ARGUMENTS.get(name, (ARGUMENTS.get(name),)):
        begun.clear()
        done = run_cli_in_process(name, *arguments, cwd=home)
        assert (done.returncode, is_one_line(done)) == (2, True), done
        assert "0.0 MB are free, and about" in done.stderr
        assert "make room, or" in done.stderr
        assert (begun, before.lost(), before.new()) == ([], [], [])
    complete.remove_new()
