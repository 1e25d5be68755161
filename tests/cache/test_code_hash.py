"""The hash of a stage's code: over the files that dvc.yaml lists, and over code alone."""

import os
import random
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers.run_cli import ROOT

from ceflpipe.cache import code_hash as module
from ceflpipe.cache.code_hash import code_files, code_hash

EXTRACT, HEADS = "stages/extract/extract.py", "stages/heads/cross_validation.py"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules, of which ``stages/a.py`` needs two, as a function that writes one of them."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())

    write("stages/a.py", '"""A."""\nfrom ..cache.b import f\n\n\ndef g(x):\n    """Add."""\n    return f(x) + 1\n')
    write("cache/b.py", "def f(x):\n    return 2 * x\n")
    write("stages/c.py", "unrelated = 1\n")
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    read_again()
    yield write
    read_again()


def read_again():
    """Let the next hash be that of the files as they are now, as in another process."""
    code_hash.cache_clear()
    module._parse.cache_clear()


def hash_of_a():
    read_again()
    return code_hash("stages/a.py")


def test_the_files_of_stage_one_are_those_that_dvc_lists():
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["extract"]["deps"]
    assert code_files(EXTRACT) == sorted(
        dep for dep in deps if dep.startswith(("stages/", "cache/")) and dep.endswith(".py")
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stages/a.py", "from ..cache.b import f\n\n\ndef g(x):\n    return f(x) + 2\n"),
        ("stages/a.py", "from ..cache.b import f\n\n\ndef g(x, y=None):\n    return f(x) + 1\n"),
        ("cache/b.py", "def f(x):\n    return 2.0 * x\n"),
        ("cache/b.py", "def f(x):\n    return 'x' * x\n"),
    ],
)
def test_another_constant_or_argument_anywhere_is_another_hash(package, name, text):
    before = hash_of_a()
    package(name, text)
    assert hash_of_a() != before


def test_comments_docstrings_layout_line_ends_and_other_modules_do_not_count(package):
    before = hash_of_a()
    package(
        "stages/a.py", "# a comment\r\nfrom ..cache.b import (\r\n    f,\r\n)\r\ndef g( x ): return (f(x)\r\n  + 1)\r\n"
    )
    package("cache/b.py", '"""B."""\n\n\ndef f(x):\n    """Double."""\n    return 2 * x  # twice\n')
    package("stages/c.py", "unrelated = 2\n")
    assert hash_of_a() == before


def test_the_hash_of_a_process_stays_that_of_the_code_it_loaded(package):
    before = hash_of_a()
    package("cache/b.py", "def f(x):\n    return 3 * x\n")
    assert code_hash("stages/a.py") == before
    assert hash_of_a() != before


LOADED = """
from pathlib import Path
from ceflpipe.stages.extract.tasks import stage_code
from ceflpipe.stages.heads.run_io import heads_code
for name in ("extract/plan.py", "heads/train.py"):
    with Path("ceflpipe/stages", name).open("a") as file:
        file.write("_edited = 1\\n")
print(stage_code(), heads_code())
"""


def test_code_that_is_edited_after_it_was_loaded_does_not_count(tmp_path):
    """A worker that lives long, or a notebook, computes with what it has loaded, and says so at its first task."""
    for name in ("cache", "stages"):
        shutil.copytree(ROOT / name, tmp_path / "ceflpipe" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ceflpipe/__init__.py").touch()
    command, env = [sys.executable, "-c", LOADED], {**os.environ, "PYTHONPATH": str(tmp_path)}
    hashes = [
        subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    read_again()
    assert hashes[0] == [code_hash(EXTRACT), code_hash(HEADS)]
    assert not set(hashes[0]) & set(hashes[1])


def test_a_changed_number_in_a_random_file_of_a_stage_changes_its_hash(tmp_path, monkeypatch):
    """On a copy of the real package, for files of stage one and of the heads."""
    rng = random.Random(0)
    for name in ("cache", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.onnx"))
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    for entry in (EXTRACT, HEADS):
        read_again()
        before = code_hash(entry)
        path = tmp_path / rng.choice(code_files(entry))
        path.write_text(path.read_text() + "\n_unused = 1\n")
        read_again()
        assert code_hash(entry) != before
    read_again()
