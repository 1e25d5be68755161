"""The commands on the documentation pages, run as they are, in the order of the pages.

A block of commands belongs to the data set it names: `mmi`, videos of your own (`--manifest`), or else the demo.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from helpers.dataset_trees import create_mmi
from helpers.docs import PAGES, code_blocks
from helpers.run_cli import ROOT, env_with_path, make_workspace, replace_in_file, run_cli_in_process
from helpers.video import panning, write_video

from ceflpipe.pipeline.cli import cli

NOT_RUN = {
    "ceflpipe encoder actors": "trains for minutes; tests/encoder",
    "ceflpipe encoder adapt --dataset demo": "trains for minutes; tests/cli/test_encoder_adapt.py",
    "ceflpipe encoder adapt --dataset demo --encoder faces": "trains for minutes; tests/cli/test_encoder_adapt.py",
    "ceflpipe encoder adapt --dataset demo --encoder actors": "trains for minutes; tests/cli/test_encoder_adapt.py",
    "ceflpipe ablate --dataset demo --encoders faces,faces-adapted,actors,actors-adapted --heads cefl,mean --seeds 3": "needs them; tests/cli/test_encoder_adapt.py",
    "ceflpipe train-heads --dataset demo --encoder faces-adapted": "needs it; tests/cli/test_encoder_adapt.py",
    "ceflpipe train-end-to-end --dataset demo --device cuda": "needs a GPU; tests/end_to_end, tests/cli/test_encoder_adapt.py",
    "ceflpipe ablate --dataset demo --encoders faces,faces-adapted,faces-end-to-end --heads cefl": "needs both; tests/cli/test_encoder_adapt.py",
    "ceflpipe encoder quantize --dataset demo": "keeps crops of all videos; tests/cli/test_encoder_quantize.py",
    "ceflpipe ablate --dataset demo --encoders faces,faces-int8 --heads cefl": "needs both; tests/cli/test_ablate_encoders.py",
    "ceflpipe extract --dataset demo --encoder faces-int8 --precision int8": "needs it; tests/cli/test_encoder_quantize.py",
    "ceflpipe extract --dataset dfew --device cuda": "needs a GPU; tests/extract/test_gpu_extract.py",
    "ceflpipe extract --dataset dfew --device cuda:0,cuda:2": "needs GPUs; tests/extract/test_gpu_extract.py",
    "ceflpipe extract --dataset demo --encoder actors": "needs the encoder actors; tests/extract/test_known_faces.py",
    "ceflpipe ablate --dataset demo --encoders faces,actors --heads cefl,mean": "needs it, too; tests/cli/test_ablate_encoders.py",
    "ceflpipe extract --dataset dfew --device cuda --cluster dask://HOST:8786 --dask-resource GPU": "tests/cli/test_cluster.py",
    "ceflpipe extract --dataset dfew --cluster dask://HOST:8786": "tests/cli/test_cluster.py",
    "ceflpipe sweep --dataset dfew --cluster dask://HOST:8786": "tests/cli/test_cluster.py",
    "ceflpipe merge-shards --dataset dfew": "tests/cli/test_cluster.py",
    "ceflpipe encoder photographs:ferplus/ --name faces --epochs 12 --crop-size 96 --joint actors --storage int8 --out faces.safetensors": "needs FER+ and an hour; tests/encoder/test_photographs.py",
    "ceflpipe encoder onnx:network.onnx --name mine --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": "needs a network; tests/encoder/test_onnx_encoder.py",
    "ceflpipe encoder timm:vit_small_patch14_dinov2.lvd142m --crop-size 224 --name dinov2": "downloads; tests/encoder/test_network_sources.py",
    "ceflpipe encoder timm:vit_small_patch14_dinov2.lvd142m --crop-size 224 --name dinov2 --checkpoint model.safetensors": "needs weights; tests/encoder/test_network_sources.py",
    "ceflpipe encoder hub:onnx-community/dinov2-small --name dinov2 --crop-size 224 --pool cls --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": "downloads; tests/encoder/test_network_sources.py",
    "ceflpipe extract --manifest videos.csv --encoder mine": "needs that encoder; tests/extract/test_encoder_onnx.py",
    "ceflpipe inspect faces --photographs ferplus/ --split test": "needs FER+; tests/encoder/test_photographs.py",
    "ceflpipe compose photographs:ferplus/ --encoder faces --videos 5000": "needs FER+; tests/extract/test_compose.py",
    "ceflpipe train-heads --manifest artifacts/manifests/composed.csv --fold-scheme split --clips 9 --batch-size 32 --lr 0.0005 --epochs 30 --precision fp32 --out faces": "needs what compose writes; tests/extract/test_compose.py",
    "ceflpipe export artifacts/runs/demo/faces/cefl-final --onnx": "takes a minute; tests/predict/test_export.py",
    "ceflpipe predict film.mp4 --all-faces --identity-network identity.onnx --out results": "needs a network; tests/predict/test_persons.py",
    "ceflpipe predict film.mp4 --all-faces --identity-network identity.onnx --out results --people names.csv": "needs it, too; tests/predict/test_persons.py",
    "ceflpipe push me/cefl-demo artifacts/runs/demo/faces/cefl-final": "needs a hub; tests/cli/test_sharing.py",
    "ceflpipe pull me/cefl-demo": "needs a hub; tests/cli/test_sharing.py",
}
"""Commands that are not run here: why, and which tests cover them. Every other command on a page is run."""
IN_A_SHELL = ("ablate", "inspect")
"""The first line of these commands runs in a process of its own, as a user types it; the others in this process."""


def group_of(block: list[str]) -> str:
    text = "\n".join(block)
    return "mmi" if re.search(r"\bmmi\b", text) else "own" if "--manifest " in text else "demo"


def lines_of(group: str) -> list[str]:
    """Return the commands of a group on all pages, without those that are not run here."""
    blocks = [block for page in PAGES for block in code_blocks(page, ("ceflpipe ", "export ")) if block]
    lines = [line for block in blocks if group_of(block) == group for line in block]
    return [line for line in lines if line not in NOT_RUN]


def values_of(lines: list[str], command: str, option: str) -> list[str]:
    """Return the values that commands of one name give to an option or argument."""
    values = []
    for name, *arguments in (shlex.split(line)[1:] for line in lines if line.startswith("ceflpipe ")):
        if name == command and (parser := cli.get_command(click.Context(cli), name)):
            value = parser.make_context(name, arguments).params[option]
            values += value if isinstance(value, tuple) else [value]
    return [str(value) for value in values if value is not None]


def run_lines(home: Path, lines: list[str]) -> None:
    """Run `ceflpipe` commands in a folder."""
    assert lines
    for line in lines:
        done = run_cli_in_process(*shlex.split(line)[1:], cwd=home)
        assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def run_in_a_shell(home: Path, lines: list[str]) -> str:
    """Run lines with bash, each `ceflpipe` in a process of its own; return what they print."""
    assert lines
    script = "\n".join(["set -ex", *lines])
    done = subprocess.run(
        ["bash", "-c", script], cwd=home, env=env_with_path(), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout


def train_for_one_epoch(home: Path) -> None:
    shutil.copy(ROOT / "params.yaml", home)
    replace_in_file(home / "params.yaml", "epochs: 120", "epochs: 1")


def write_videos(home: Path, arguments: list[str], write: Callable[[Path], object]) -> None:
    """Write a video for every argument of predict that does not exist; a pattern gets two."""
    for argument in arguments:
        for path in (home / argument.replace("*", number) for number in "12"):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path)


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """Commands see one core, so sweeps train in this process and start no workers."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def test_every_command_that_is_not_run_is_on_a_page():
    commands = {line for page in PAGES for block in code_blocks(page) for line in block}
    assert not set(NOT_RUN) - commands


@pytest.mark.slow
def test_the_commands_for_a_listed_data_set(tmp_path, random_encoder, monkeypatch):
    home = make_workspace(
        tmp_path / "home", "mmi", random_encoder, **{r"dual_view_size: \[720, 576\]": "dual_view_size: [320, 160]"}
    )
    train_for_one_epoch(home)
    root = tmp_path / "MMI"
    create_mmi(root / "Sessions")
    shutil.rmtree(root / "Sessions/503")  # cannot be read, which would make extract exit with 1
    # the front page sets the variable, the page of data sets relies on it
    lines = lines_of("mmi")
    exports = [line for line in lines if line.startswith("export ")]
    assert len(exports) == 1
    variable, folder = exports[0].removeprefix("export ").split("=")
    assert folder == "/data/MMI"
    monkeypatch.setenv(variable, str(root))
    run_lines(home, [line for line in lines if line not in exports])
    assert (home / "artifacts/reports/mmi/report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_commands_for_videos_of_your_own(tmp_path, photographs):
    train_for_one_epoch(tmp_path)
    lines = lines_of("own")
    (manifest,) = {*values_of(lines, "extract", "manifest"), *values_of(lines, "train-heads", "manifest")}
    rows = ["path,label,subject"]
    for i in range(10):
        frames = panning(photographs["astronaut"], 6, (192, 192), (90 + i, 10), (120, 30))
        write_video(tmp_path / f"v{i}.mp4", frames)
        rows.append(f"v{i}.mp4,{('happy', 'sad')[i % 2]},S{i // 2}")
    (tmp_path / manifest).write_text("\n".join(rows) + "\n")
    write_videos(tmp_path, values_of(lines, "predict", "videos"), lambda path: shutil.copy(tmp_path / "v0.mp4", path))
    assert re.search("happiness|sadness", run_in_a_shell(tmp_path, lines))


@pytest.mark.slow
def test_the_commands_for_the_demo(tmp_path, face_video):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    train_for_one_epoch(tmp_path)
    replace_in_file(tmp_path / "configs/demo.yaml", "folds: 10", "folds: 2")
    replace_in_file(
        tmp_path / "configs/demo.yaml",
        r"demo: \{.*\}",
        "demo: {subjects: 4, size: 128, num_frames: [24, 26], fps: 25, seed: 1}",
    )
    lines = lines_of("demo")
    run_lines(tmp_path, ["ceflpipe demo", "ceflpipe manifest", "ceflpipe extract", "ceflpipe train-heads"])
    write_videos(tmp_path, values_of(lines, "predict", "videos"), lambda path: shutil.copy(face_video, path))
    in_a_shell = [next(line for line in lines if line.startswith(f"ceflpipe {name} ")) for name in IN_A_SHELL]
    run_in_a_shell(tmp_path, in_a_shell)
    run_lines(tmp_path, [line for line in lines if line not in in_a_shell])
    assert len(list((tmp_path / "artifacts/sweeps/demo").rglob("sweep*.png"))) >= 2
    for command, option in (("predict", "out"), ("predict", "csv_path"), ("inspect", "contact_sheet")):
        outputs = values_of(lines, command, option)
        assert outputs
        assert all((tmp_path / output).exists() for output in outputs)
