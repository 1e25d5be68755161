"""What is installed from a wheel works without the checkout: in another folder, with nothing beside it."""

import os
import subprocess
import sys

import pytest
from helpers.cli import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the wheel from a copy of what is committed and unpack it alone."""
    place = tmp_path_factory.mktemp("wheel")
    quiet = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place / "copy")], check=True)
    subprocess.run([*quiet, "wheel", "--no-deps", "--wheel-dir", str(place), str(place / "copy")], check=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([*quiet, "install", "--no-deps", "--target", str(place / "site"), str(wheel)], check=True)
    return place / "site"


def test_the_wheel_holds_everything_that_is_needed(site, tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "ceflpipe.pipeline", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    where = subprocess.run(
        [sys.executable, "-c", "import ceflpipe; print(ceflpipe.__file__)"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.strip().startswith(str(site))
    assert "DFEW" in run("datasets").stdout
    assert run("demo", "--help").returncode == 0
    assert "191.39" in run("complexity").stdout
    for kind in ("*.py", "*.yaml", "*.jinja", "py.typed"):
        ours = {p.relative_to(ROOT).as_posix() for p in ROOT.rglob(kind) if p.relative_to(ROOT).parts[0] in
                ("pipeline", "stages", "cache", "configs", "py.typed") and "sweep" not in p.parts}  # fmt: skip
        shipped = {p.relative_to(site / "ceflpipe").as_posix() for p in (site / "ceflpipe").rglob(kind)}
        assert ours <= shipped, kind
