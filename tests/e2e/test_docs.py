"""Documentation pages: their sessions run, their commands parse, every command is on a page."""

import doctest
import re
import shlex

import click
import pytest
from helpers.cli import ROOT
from helpers.docs import PAGES, commands
from helpers.fake_cache import fake_cache, fake_manifest

from ceflpipe.pipeline.cli import COMMANDS, cli


@pytest.mark.parametrize(
    "line", [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in commands(page)]
)
def test_a_command_on_a_page_is_understood(line):
    """Its options are parsed by the command's own parser; nothing is run."""
    name, *arguments = shlex.split(line)[1:]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"{name} is no command"
    command.make_context(name, arguments)


def test_every_command_is_on_a_page():
    text = "\n".join(page.read_text() for page in PAGES)
    assert [name for name in COMMANDS if not re.search(rf"ceflpipe {name}\b|`{name}`", text)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text()], ids=lambda page: page.name)
def test_a_session_on_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts/features").mkdir(parents=True)
    fake_cache(tmp_path / "artifacts/features/demo.h5", fake_manifest(tmp_path))
    found = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.slow
def test_the_calls_for_notebooks_do_what_their_docstrings_show(tmp_path, monkeypatch, face_video, random_encoder):
    import shutil

    import numpy as np
    from helpers.video import panning, write_video

    from ceflpipe.pipeline import api

    monkeypatch.chdir(tmp_path)
    shutil.copy(random_encoder, "encoder.safetensors")
    import skimage.data

    for i in range(6):
        write_video(
            tmp_path / f"v{i}.mp4",
            panning(np.ascontiguousarray(skimage.data.astronaut()), 12, (192, 192), (100, 20), (100 + i, 30)),
        )
    rows = "".join(f"v{i},v{i}.mp4,{('anger', 'fear')[i % 2]},S{i // 2}\n" for i in range(6))
    (tmp_path / "list.csv").write_text(f"id,path,label,subject\n{rows}")
    module = doctest.testmod(api, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert module.attempted >= 12
    assert module.failed == 0
    import ceflpipe

    assert all(getattr(ceflpipe, name) is getattr(api, name) for name in ceflpipe.__all__)


def test_every_message_on_the_page_of_troubles_is_one_that_the_program_has():
    program = "".join(
        path.read_text() for room in ("cache", "pipeline", "stages") for path in (ROOT / room).rglob("*.py")
    )
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(rows) > 15
    for row in rows:
        for message in re.findall(r"`([^`]+)`", row):
            pieces = [piece.strip() for piece in re.split(r"…|[()]|\bN\b|\bM\b|\b0\b", message)]
            assert max(pieces, key=len) in program, message


def test_links_between_pages_and_to_pictures_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_four_lines_of_the_front_page_run_as_they_stand(tmp_path, photographs, random_encoder):
    """But for the first, which trains an encoder for minutes: its file is there already."""
    import shutil

    from helpers.cli import run_cli
    from helpers.video import panning, write_video

    from ceflpipe.stages.encoder.weights import load_encoder, write_encoder

    encoder, *lines = commands(ROOT / "README.md", "## Your own videos in four lines")
    assert len(lines) == 3
    assert encoder == "ceflpipe encoder actors"
    weights = load_encoder(random_encoder).state_dict()
    write_encoder(
        tmp_path / "artifacts/weights/actors.safetensors", weights, "actors", "imagenet", {"source": "untrained"}
    )
    rows = ["path,label,subject"]
    for i in range(10):
        name = f"v{i}.mp4"
        write_video(tmp_path / name, panning(photographs["astronaut"], 6, (192, 192), (90 + i, 10), (120, 30)))
        rows.append(f"{name},{('happy', 'sad')[i % 2]},S{i // 2}")
    shutil.copy(tmp_path / "v0.mp4", tmp_path / "new_video.mp4")
    (tmp_path / "videos.csv").write_text("\n".join(rows) + "\n")
    for line in lines:
        done = run_cli(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert "happiness" in done.stdout or "sadness" in done.stdout
