"""What an installation without extras can do, and what is said where an extra is needed."""

import json
import os
import re

import pytest
from helpers.dependencies import PROJECT
from helpers.run_cli import ROOT, run_cli

EXTRAS = (
    "insightface",
    "retinaface",
    "onnx",
    "onnxscript",
    "timm",
    "huggingface_hub",
    "openvino",
    "distributed",
    "dvc",
    "skimage",
)
"""Import names of packages that only extras bring."""
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    """A function that returns the environment of a Python in which packages are not installed."""

    def environment(*names):
        site = tmp_path_factory.mktemp("site")
        (site / "sitecustomize.py").write_text(BLOCKED.format(names=set(names)))
        return {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT.parent)])}

    return environment


def test_a_video_is_predicted_without_any_extra(tmp_path, face_video, block):
    done = run_cli("predict", face_video, "--json", "--quiet", cwd=tmp_path, env=block(*EXTRAS))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("extract", "--manifest", "mine.csv", "--detector", "insightface:buffalo_l"), "insightface"),
        (("encoder", "onnx:{video}", "--mean", "0,0,0", "--std", "1,1,1"), "onnx"),
        (("encoder", "timm:resnet10t"), "timm"),
        (("encoder", "hub:owner/name"), "hub"),
    ],
)
def test_where_an_extra_is_needed_one_line_has_the_command_that_installs_it(
    tmp_path, face_video, block, command, extra
):
    (tmp_path / "mine.csv").write_text(f"id,path,label\na,{face_video},fear\n")
    done = run_cli(*(part.format(video=face_video) for part in command), cwd=tmp_path, env=block(*EXTRAS))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ceflpipe:")]
    assert "Traceback" not in done.stderr
    assert f"ceflpipe[{extra}]" in line


def test_every_extra_that_a_message_or_a_page_names_can_be_installed():
    sources = [path for name in ("cache", "pipeline", "stages") for path in (ROOT / name).rglob("*.py")]
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {
        extra
        for path in (*sources, *pages)
        for extras in re.findall(r"(?:ceflpipe|install \"\.)\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert {"hub", "timm", "parquet"} <= named <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("command", [("--help",), ("predict", "--help"), ("datasets",), ("config", "--dataset", "mmi")])
def test_light_commands_need_no_torch(tmp_path, block, command):
    done = run_cli(
        *command, cwd=tmp_path, env=block(*EXTRAS, "torch", "torchvision", "sklearn", "matplotlib", "pandas")
    )
    assert done.returncode == 0, done.stderr
