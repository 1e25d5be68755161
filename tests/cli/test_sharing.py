"""`ceflpipe push` and `pull` against a local stand-in for the hub: the same bytes come back, and nothing else comes with them."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from helpers import fake_cache as fake_cache_module
from helpers.fake_cache import fake_cache, fake_manifest
from helpers.fake_hub import TOKEN, serve_fake_hub
from helpers.run_cli import run_cli, run_cli_in_process
from safetensors.torch import load_file, save_file

from ceflpipe.cache import ownership
from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.ownership import format_sum, read_sums
from ceflpipe.stages.encoder.weights import resnet18_backbone, write_encoder
from ceflpipe.stages.manifest.manifest import Manifest, write_manifest

pytestmark = pytest.mark.slow

RUN = "artifacts/runs/list/base/mean"
PULLED = "artifacts/pulled/lab/net"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working folder with an encoder, a feature cache, a cross-validated run and its final model."""
    home = tmp_path_factory.mktemp("trained")
    encoder = home / "artifacts/weights/base.safetensors"
    encoder.parent.mkdir(parents=True)
    torch.manual_seed(3)
    write_encoder(encoder, resnet18_backbone().state_dict(), "base", "imagenet", {"source": "untrained"}, crop_size=64)
    manifest = fake_manifest(home)
    write_manifest(home / "list.csv", manifest.entries)
    for entry in manifest.entries:
        (home / entry.path).touch()
    settings = replace(
        fake_cache_module.SETTINGS, encoder="base", encoder_sha256=sha256_of(encoder), normalization="imagenet",
        detector_sha256="",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_cache_module, "SETTINGS", settings)
        cache = home / "artifacts/features/list/base.h5"
        fake_cache(cache, Manifest("list", home, manifest.entries, manifest.labels), encoder="base")
    arguments = ("--manifest", "list.csv", "--encoder", "base", "--head", "mean")
    run_cli_in_process("train-heads", *arguments, "--folds", 2, "--epochs", 2, "--quiet", cwd=home, check=True)
    run_cli_in_process("train-heads", *arguments, "--final", "--quiet", cwd=home, check=True)
    return home


@pytest.fixture
def home(trained, tmp_path):
    """A copy to push from."""
    return shutil.copytree(trained, tmp_path / "home")


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub that huggingface_hub in this process uses."""
    from huggingface_hub import constants

    with serve_fake_hub() as hub:
        for name, value in {
            "ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": True,
        }.items():  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def push(home, *arguments, check=True):
    return run_cli_in_process("push", "lab/net", *arguments, cwd=home, check=check)


def pull(folder, *arguments, check=True):
    return run_cli_in_process("pull", "lab/net", *arguments, cwd=folder, check=check)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(done, *texts):
    """Return whether a command ended in one line that has these texts."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("ceflpipe:")]
    return done.returncode == 2 and len(lines) == 1 and all(text in lines[0] for text in texts)


def change(hub, files):
    """Make a commit with changed files (None: deleted) on the repository, as its owner could by hand."""
    repository = hub.repositories["lab/net"]
    changed = {**repository.commits[repository.head], **files}
    return repository.commit({name: content for name, content in changed.items() if content is not None})


@pytest.mark.parametrize("name", ["mean", "mean-final"])
def test_a_run_comes_back_with_the_same_bytes_and_its_encoder(home, elsewhere, hub, name):
    run = home / "artifacts/runs/list/base" / name
    pushed = push(home, run)
    command = pushed.stdout.splitlines()[-1].split()
    assert command[:3] == ["ceflpipe", "pull", "lab/net"]
    done = run_cli_in_process(*command[1:], cwd=elsewhere, check=True)
    assert contents(elsewhere / PULLED) == contents(run)
    assert (elsewhere / "artifacts/weights/base.safetensors").read_bytes() == (
        home / "artifacts/weights/base.safetensors"
    ).read_bytes()
    record = json.loads((elsewhere / f"{PULLED}.hub.json").read_text())
    assert (record["commit"], record["sha256"]) == (command[4], sha256_of(run / "SHA256SUMS"))
    assert hub.repositories["lab/net"].private
    assert "--encoder artifacts/weights/base.safetensors" in done.stderr
    card = run_cli_in_process("inspect", PULLED, cwd=elsewhere, check=True).stdout
    assert "### Encoder base" in card


def test_a_pulled_run_predicts_what_the_pushed_one_does(home, elsewhere, face_video, tmp_path):
    """In processes of their own, with the environment variables of the hub."""
    with serve_fake_hub() as hub:
        environment = hub.environment(tmp_path / "cache")
        run_cli("push", "lab/net", f"{RUN}-final", cwd=home, env=environment, check=True)
        run_cli("pull", "lab/net", cwd=elsewhere, env=environment, check=True)
    records = [
        json.loads(run_cli("predict", face_video, "--run", run, "--json", cwd=folder, check=True).stdout)
        for folder, run in ((home, f"{RUN}-final"), (elsewhere, PULLED))
    ]
    assert records[0] == records[1]
    assert records[0][0]["probabilities"]


def test_an_encoder_comes_back_with_its_card(home, elsewhere, hub):
    file = home / "artifacts/weights/base.safetensors"
    push(home, "base")
    assert set(hub.repositories["lab/net"].at("main")[1]) == {
        ".gitattributes", "README.md", "SHA256SUMS", "base.safetensors",
    }  # fmt: skip
    assert b"# Encoder base" in hub.repositories["lab/net"].at("main")[1]["README.md"]
    done = pull(elsewhere)
    assert done.stdout.strip() == "artifacts/weights/net.safetensors"
    assert (elsewhere / "artifacts/weights/net.safetensors").read_bytes() == file.read_bytes()


def test_a_dry_run_lists_every_file_and_connects_to_nothing(home, hub):
    done = push(home, RUN, "--dry-run", "--json")
    files = json.loads(done.stdout)["files"]
    expected = {f"{name}": len(content) for name, content in contents(home / RUN).items()}
    encoder = home / "artifacts/weights/base.safetensors"
    assert files == expected | {"encoder/base.safetensors": encoder.stat().st_size}
    assert "name the videos and subjects" in done.stderr
    assert hub.requests == []


def test_only_files_of_a_run_are_pushed_and_old_ones_go(home, hub):
    push(home, RUN)
    change(hub, {"notes.txt": b"base", "predictions/fold-9.csv": b"old"})
    shutil.copy(home / "list.csv", home / RUN / "secret.csv")
    push(home, RUN)
    names = set(hub.repositories["lab/net"].at("main")[1])
    assert names == {*contents(home / RUN), ".gitattributes", "notes.txt", "encoder/base.safetensors"} - {"secret.csv"}


def test_a_public_repository_is_not_written_by_accident(home, hub):
    push(home, RUN, "--public")
    assert not hub.repositories["lab/net"].private
    before = hub.repositories["lab/net"].head
    assert refused(push(home, f"{RUN}-final", check=False), "is public", "--public")
    assert hub.repositories["lab/net"].head == before


@pytest.mark.parametrize(
    ("source", "text"),
    [("faces", "comes with ceflpipe"), ("nothing", "no run folder"), ("network.onnx", "only safetensors are pushed")],
)
def test_what_is_no_run_and_no_encoder_of_safetensors_is_not_pushed(home, hub, source, text):
    (home / "network.onnx").write_bytes(b"x")
    assert refused(push(home, source, check=False), text)
    assert hub.requests == []


def test_an_edited_run_is_not_pushed(home, hub):
    (home / RUN / "metrics.json").write_text("{}")
    assert refused(push(home, RUN, check=False), "checksum mismatch")
    assert hub.requests == []


def test_code_and_other_files_of_a_repository_stay_there(home, elsewhere, hub):
    push(home, RUN)
    change(hub, {"pytorch_model.bin": b"pickle", "model.py": b"import os", "predictions/x.pkl": b"pickle"})
    done = pull(elsewhere)
    assert "not taken, no part of a run: model.py, predictions/x.pkl, pytorch_model.bin" in done.stderr
    assert contents(elsewhere / PULLED) == contents(home / RUN)
    assert not [path for _, path in hub.requests if path.endswith((".bin", ".py", ".pkl"))]


@pytest.mark.parametrize(
    "path", ["../evil.csv", "/etc/evil.csv", "predictions/../../evil.csv", "a\\..\\evil.csv", "C:evil"]
)
def test_a_path_that_leads_out_is_refused_and_nothing_is_written(home, elsewhere, hub, path):
    push(home, RUN)
    change(hub, {path: b"x"})
    assert refused(pull(elsewhere, check=False), "leads out of its folder")
    assert not list(elsewhere.rglob("*"))


def test_a_file_that_is_not_as_the_checksums_say_is_refused(home, elsewhere, hub):
    push(home, RUN)
    head = hub.repositories["lab/net"].at("main")[1]
    change(hub, {"metrics.json": head["metrics.json"].replace(b"videos", b"movies", 1)})
    assert refused(pull(elsewhere, check=False), "metrics.json: not as its SHA256SUMS says")
    change(hub, {"metrics.json": head["metrics.json"], "predictions/fold-2.csv": None})
    assert refused(pull(elsewhere, check=False), "predictions/fold-2.csv: not as")
    assert not (elsewhere / "artifacts").exists()


def test_weights_that_are_not_those_of_the_run_are_refused(home, elsewhere, hub, tmp_path):
    """Also if the checksums were written for them: they are loaded once before anything is written."""
    push(home, RUN)
    head = hub.repositories["lab/net"].at("main")[1]
    save_file({"x": torch.zeros(3)}, tmp_path / "w.safetensors")
    weights = (tmp_path / "w.safetensors").read_bytes()
    sums = read_sums(home / RUN / "SHA256SUMS") | {"weights.safetensors": {hashlib.sha256(weights).hexdigest()}}
    text = "".join(format_sum(next(iter(digests)), name) for name, digests in sums.items()).encode()
    change(hub, {"weights.safetensors": weights, "SHA256SUMS": text})
    assert refused(pull(elsewhere, check=False), "not the weights of this run's head")
    assert not (elsewhere / "artifacts/pulled").exists()
    state = load_file(home / "artifacts/weights/base.safetensors")
    write_encoder(tmp_path / "e.safetensors", {k: v + 1 for k, v in state.items()}, "base", "imagenet", {})
    change(hub, {**head, "encoder/base.safetensors": (tmp_path / "e.safetensors").read_bytes()})
    assert refused(pull(elsewhere, check=False), "is not the encoder of its run")
    assert not (elsewhere / "artifacts/weights").exists()


def test_commit_and_hash_are_pinned(home, elsewhere, hub):
    push(home, RUN)
    first = hub.repositories["lab/net"].head
    sums = sha256_of(home / RUN / "SHA256SUMS")
    assert refused(pull(elsewhere, "--checksum", "0" * 64, check=False), "do not trust it")
    pull(elsewhere, "--checksum", sums)
    pull(elsewhere)  # the same again
    second = change(hub, {"notes.txt": b"x"})
    assert refused(pull(elsewhere, check=False), first, "--revision", second)
    pull(elsewhere, "--revision", second)
    assert json.loads((elsewhere / f"{PULLED}.hub.json").read_text())["commit"] == second
    pull(elsewhere, "--revision", first, "--out", "old")
    assert contents(elsewhere / "old") == contents(home / RUN)
    assert refused(pull(elsewhere, "--revision", "1" * 40, "--out", "x", check=False), "cannot be read")


def test_the_same_commit_with_other_bytes_is_refused(home, elsewhere, hub, tmp_path):
    push(home, RUN)
    pull(elsewhere)
    record = elsewhere / f"{PULLED}.hub.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "sha256": "0" * 64}))
    assert refused(pull(elsewhere, check=False), "has other bytes than before")


def test_files_of_the_user_stay(home, elsewhere, hub):
    push(home, RUN)
    (elsewhere / PULLED).mkdir(parents=True)
    (elsewhere / PULLED / "thesis.tex").write_text("years of work")
    assert refused(pull(elsewhere, check=False), "thesis.tex", "which ceflpipe did not write")
    encoder = elsewhere / "artifacts/weights/base.safetensors"
    encoder.parent.mkdir()
    encoder.write_text("base")
    assert refused(pull(elsewhere, "--out", "run", check=False), "base.safetensors: exists", "--encoder-out")
    assert not (elsewhere / "run").exists()
    pull(elsewhere, "--out", "run", "--encoder-out", "e.safetensors")
    assert encoder.read_text() == "base"


def test_a_full_disk_is_refused_before_anything_is_downloaded(home, elsewhere, hub, monkeypatch):
    push(home, RUN)
    usage = shutil.disk_usage(home)
    monkeypatch.setattr(ownership.shutil, "disk_usage", lambda path: usage._replace(free=80_000_000))
    hub.requests.clear()
    assert refused(pull(elsewhere, check=False), "80.0 MB are free, and about", "make room, or give --out")
    assert [path for _, path in hub.requests if "/resolve/" in path] == []
    assert os.listdir(elsewhere) == []


def test_without_a_login_a_name_or_a_connection_there_is_one_line(home, elsewhere, hub, monkeypatch):
    from huggingface_hub import constants

    push(home, RUN)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert refused(pull(elsewhere, check=False), "log in with hf auth login")
    assert refused(push(home, RUN, check=False), "log in with hf auth login")
    done = run_cli_in_process("pull", "../x", cwd=elsewhere)
    assert refused(done, "write hub:OWNER/NAME")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for done in (pull(elsewhere, check=False), push(home, RUN, check=False)):
        assert refused(done, "check the connection")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused(pull(elsewhere, check=False), "check the connection")
    assert os.listdir(elsewhere) == []
