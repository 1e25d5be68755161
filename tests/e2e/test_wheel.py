"""The installed wheel works in another folder, without the repository."""

import os
import subprocess
import sys

import pytest
from helpers.run_cli import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the wheel from a clone of the repository and install it without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(folder / "clone")], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def test_the_wheel_has_all_files_and_runs(site, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "ceflpipe.pipeline", *arguments], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    path = subprocess.run(
        [sys.executable, "-c", "import ceflpipe; print(ceflpipe.__file__)"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert path.stdout.strip().startswith(str(site))
    assert "DFEW" in run("datasets").stdout
    assert run("demo", "--help").returncode == 0
    assert "191.39" in run("complexity").stdout
    for kind in ("*.py", "*.yaml", "*.jinja", "*.safetensors", "py.typed"):
        expected = {p.relative_to(ROOT).as_posix() for p in ROOT.rglob(kind) if p.relative_to(ROOT).parts[0] in
                ("pipeline", "stages", "cache", "configs", "params.yaml", "py.typed") and "sweep" not in p.parts}  # fmt: skip
        installed = {p.relative_to(site / "ceflpipe").as_posix() for p in (site / "ceflpipe").rglob(kind)}
        assert expected <= installed, kind
