"""What is needed to publish: the container gets all files of the wheel, and the lists of packages are complete."""

import fnmatch
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml
from helpers.dependencies import PROJECT, WEIGHTS, required
from helpers.run_cli import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def files_of_wheel(folder, source):
    command = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "wheel",
        "--no-deps",
        "--wheel-dir",
    ]
    subprocess.run([*command, str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


@pytest.mark.slow
def test_the_container_is_built_from_all_files_of_the_wheel(tmp_path):
    """As Docker would: only what .dockerignore lets through is copied."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    context = tmp_path / "context"
    context.mkdir()
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source = tmp_path / "clone" / line[1:]
            (shutil.copytree if source.is_dir() else shutil.copy)(source, context / line[1:])
    (tmp_path / "whole").mkdir()
    (tmp_path / "part").mkdir()
    whole = files_of_wheel(tmp_path / "whole", tmp_path / "clone")
    assert len(whole) > 150
    assert files_of_wheel(tmp_path / "part", context) == whole


def test_the_container_has_a_python_and_extras_that_the_package_has():
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"ARG PYTHON=(\S+)", text)[1] in SpecifierSet(PROJECT["requires-python"])
    extras = re.search(r"ARG EXTRAS=(\S+)", text)[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    stages = re.findall(r"^FROM \S+(?: AS (\w+))?", text, re.MULTILINE)
    assert set(re.findall(r"--from=(\w+)", text)) <= set(stages)
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    for name in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert name == "." or f"!{name}" in let_through, f"{name} does not reach the builder"
    user = re.search(r"^USER (\d+)$", text, re.MULTILINE)
    assert user, "by number, which Kubernetes can check"
    assert int(user[1]) > 0, "not as root"
    assert f"useradd --create-home --uid {user[1]} " in text[: user.start()]
    assert text.index(user[0]) < text.index("ENTRYPOINT")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_use_versions_that_the_package_supports_and_files_that_exist(path):
    workflow = yaml.safe_load(path.read_text())
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        versions = job.get("strategy", {}).get("matrix", {}).get("python", [])
        assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in versions)
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/-]+@(v\d+|release/v\d+)", step.get("uses", "a/b@v1")), "a pinned version"
            for extras in re.findall(r"\.\[([\w,]+)\]", step.get("run", "")):
                assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
            for name in re.findall(r"(?:^| )(\.ci/\S+|tests/\S+)", step.get("run", "")):
                assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_refer_to_jobs_and_matrix_values_that_they_have(path):
    """What their schema cannot say: GitHub would refuse the file, or put nothing in the place of the expression."""
    workflow = yaml.safe_load(path.read_text())
    for name, job in workflow["jobs"].items():
        needs = job.get("needs", [])
        assert ({needs} if isinstance(needs, str) else set(needs)) <= set(workflow["jobs"]) - {name}
        used = set(re.findall(r"\$\{\{ *matrix\.(\w+)", yaml.safe_dump(job, width=10_000)))
        assert used <= set(job.get("strategy", {}).get("matrix", {}))


@pytest.mark.parametrize(
    ("schema", "paths"),
    [("github-workflows", WORKFLOWS), ("citation-file-format", [ROOT / "CITATION.cff"])],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_workflows_and_citation_follow_their_schemas(schema, paths):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_constraints_have_every_requirement_in_an_allowed_version():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    for requirement in map(Requirement, required("dvc", "dev", "dask", "hub", "openvino", "docs")):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_page_of_licences_has_every_dependency_and_all_weights():
    page = (ROOT / "docs/licences.md").read_text()
    for requirement in map(Requirement, required()):
        assert f"| [{canonicalize_name(requirement.name)}](" in page, "make licences"
    weights = [
        path.relative_to(ROOT).as_posix()
        for kind in ("*.safetensors", "*.onnx", "*.npz", "*.pt")
        for path in (ROOT / "stages").rglob(kind)
    ]
    assert len(weights) >= 5
    assert [path for path in weights if not any(fnmatch.fnmatch(path, pattern) for pattern in WEIGHTS)] == []
    assert all(pattern in page for pattern in WEIGHTS)
