"""Documentation pages: their sessions run, their commands parse, every command is on a page, links and messages exist."""

import doctest
import re
import shlex
import shutil

import click
import numpy as np
import pytest
from helpers.docs import PAGES, commands
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.run_cli import ROOT
from helpers.video import panning, write_video

from ceflpipe.pipeline.cli import COMMANDS, cli


@pytest.mark.parametrize(
    "line", [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in commands(page)]
)
def test_a_command_on_a_page_parses(line):
    """Its options are parsed by the command's own parser; nothing is run."""
    name, *arguments = shlex.split(line)[1:]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"no command {name}"
    command.make_context(name, arguments)


def test_every_command_is_on_a_page():
    text = "\n".join(page.read_text() for page in PAGES)
    assert [name for name in COMMANDS if not re.search(rf"ceflpipe {name}\b|`{name}`", text)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text()], ids=lambda page: page.name)
def test_a_session_on_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts/features").mkdir(parents=True)
    fake_cache(tmp_path / "artifacts/features/demo/faces.h5", fake_manifest(tmp_path))
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.slow
def test_the_python_interface_does_what_its_docstrings_show(tmp_path, monkeypatch, photographs, random_encoder):
    import ceflpipe
    from ceflpipe.pipeline import api

    monkeypatch.chdir(tmp_path)
    shutil.copy(random_encoder, "encoder.safetensors")
    image = np.ascontiguousarray(photographs["astronaut"])
    for i in range(6):
        write_video(tmp_path / f"v{i}.mp4", panning(image, 12, (192, 192), (100, 20), (100 + i, 30)))
    rows = "".join(f"v{i},v{i}.mp4,{('anger', 'fear')[i % 2]},S{i // 2}\n" for i in range(6))
    (tmp_path / "list.csv").write_text(f"id,path,label,subject\n{rows}")
    result = doctest.testmod(api, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted >= 12
    assert result.failed == 0
    assert all(getattr(ceflpipe, name) is getattr(api, name) for name in ceflpipe.__all__)


def test_every_message_on_the_troubleshooting_page_is_one_of_the_program():
    program = "".join(
        path.read_text() for folder in ("cache", "pipeline", "stages") for path in (ROOT / folder).rglob("*.py")
    )
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    for row in rows:
        for message in re.findall(r"`([^`]+)`", row):
            pieces = [piece.strip() for piece in re.split(r"…|[()]|\bN\b|\bM\b|\b0\b", message)]
            assert max(pieces, key=len) in program, message


def test_links_between_pages_and_to_images_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
