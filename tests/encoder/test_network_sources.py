"""Encoders of timm and of the Hugging Face hub: weights from a checkpoint or a cache, hashes, and what is said offline."""

import shutil
import socket

import numpy as np
import onnx
import pytest
import torch
from helpers.onnx_encoders import SIZE, small, write_small
from helpers.run_cli import run_cli_in_process
from onnx import TensorProto
from safetensors.torch import save_file

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.encoder.build_hub import build_hub_encoder
from ceflpipe.stages.encoder.build_network import build_network_encoder
from ceflpipe.stages.encoder.build_timm import build_timm_encoder
from ceflpipe.stages.encoder.hub import fetch
from ceflpipe.stages.encoder.onnx_card import NetworkConfig, read_card
from ceflpipe.stages.extract.encoder_onnx import OnnxEncoder

COMMIT, OTHER = "a" * 40, "b" * 40
NAME = "test_vit.r160_in1k"


class FakeHub:
    """The cache of huggingface_hub with one repository: files are links into blobs/, as there."""

    def __init__(self, root, refs):
        self.root, self.refs, self.requests = root / "models--lab--net", refs, []

    def add(self, file, content, commit=COMMIT):
        blob = self.root / "blobs" / f"{abs(hash((file, content)))}"
        path = self.root / "snapshots" / commit / file
        blob.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        path.unlink(missing_ok=True)
        path.symlink_to(blob)

    def __call__(self, repository, file, revision):
        self.requests.append((repository, file, revision))
        path = self.root / "snapshots" / self.refs.get(revision, revision) / file
        if not path.is_file():
            raise FileNotFoundError("no connection")
        return path


@pytest.fixture
def hub(tmp_path):
    return FakeHub(tmp_path / "hub", {"main": COMMIT})


def config(**values):
    return NetworkConfig(source="hub", name="lab/net", **{"mean": (0, 0, 0), "std": (1, 1, 1), **values})


def test_a_branch_is_pinned_to_its_commit(tmp_path, hub):
    content = write_small(tmp_path / "n.onnx").read_bytes()
    hub.add("onnx/model.onnx", content)
    build_hub_encoder(config(), tmp_path / "e.onnx", "e", downloader=hub)
    card = read_card(tmp_path / "e.onnx")
    assert card.source == "hub:lab/net"
    assert card.notes == {"revision": COMMIT, "file": "onnx/model.onnx"}
    assert card.source_sha256 == sha256_of(tmp_path / "n.onnx")
    assert hub.requests == [("lab/net", "onnx/model.onnx", "main")]


def test_other_bytes_of_the_same_commit_are_refused(tmp_path, hub):
    hub.add("onnx/model.onnx", write_small(tmp_path / "n.onnx").read_bytes())
    build_hub_encoder(config(revision=COMMIT), tmp_path / "e.onnx", "e", downloader=hub)
    before = (tmp_path / "e.onnx").read_bytes()
    other = write_small(tmp_path / "n.onnx", seed=1).read_bytes()
    hub.add("onnx/model.onnx", other)
    with pytest.raises(CeflError, match=r"of commit aaaaaaaa has the hash .*, and had .* when"):
        build_hub_encoder(config(revision=COMMIT), tmp_path / "e.onnx", "e", downloader=hub)
    assert (tmp_path / "e.onnx").read_bytes() == before
    hub.add("onnx/model.onnx", other, OTHER)  # another commit may have others
    build_hub_encoder(config(revision=OTHER), tmp_path / "e.onnx", "e", downloader=hub)
    assert read_card(tmp_path / "e.onnx").notes["revision"] == OTHER


def test_external_data_are_fetched_from_the_same_commit(tmp_path, hub):
    model = small().model(("N", 3, SIZE, SIZE), "features")
    weight = model.graph.initializer[0]
    hub.add("onnx/parts/w.bin", weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="parts/w.bin")
    hub.add("onnx/model.onnx", model.SerializeToString())
    build_hub_encoder(config(), tmp_path / "e.onnx", "e", downloader=hub)
    assert hub.requests[1:] == [("lab/net", "onnx/parts/w.bin", COMMIT)]
    assert all(t.data_location != TensorProto.EXTERNAL for t in onnx.load(str(tmp_path / "e.onnx")).graph.initializer)
    weight.external_data[0].value = "../../secret"
    hub.add("onnx/model.onnx", model.SerializeToString(), OTHER)
    with pytest.raises(CeflError, match=r"'../../secret', leads out of its folder"):
        build_hub_encoder(config(revision=OTHER), tmp_path / "e.onnx", "e", downloader=hub)


def test_a_copy_of_the_file_is_used_without_the_network(tmp_path, hub):
    network = write_small(tmp_path / "n.onnx")
    build_hub_encoder(config(path=str(network), revision=COMMIT), tmp_path / "e.onnx", "e", downloader=hub)
    assert read_card(tmp_path / "e.onnx").source == "hub:lab/net"
    assert not hub.requests


@pytest.mark.parametrize(
    ("repository", "file", "match"),
    [
        ("net", "x.onnx", "write hub:OWNER/NAME"),
        ("../..", "x.onnx", "not the name of a repository"),
        ("lab/net", "../x.onnx", "not the path of a file in a repository"),
        ("lab/net", "/etc/x.onnx", "not the path of a file in a repository"),
        ("lab/net", "x.onnx", r"get https://huggingface.co/lab/net/resolve/main/x.onnx on another machine and give it with --checkpoint"),
    ],
)  # fmt: skip
def test_what_is_not_to_be_had_ends_in_one_line(hub, repository, file, match):
    with pytest.raises(CeflError, match=match) as caught:
        fetch(repository, file, "", hub)
    assert "\n" not in str(caught.value)


def test_the_message_of_the_real_hub_without_a_connection(tmp_path, monkeypatch):
    def refuse(*arguments, **values):
        raise OSError("no network in tests")

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = run_cli_in_process("encoder", "hub:lab/net", "--mean", "0,0,0", "--std", "1,1,1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("ceflpipe: hub:lab/net: cannot download onnx/model.onnx (")
    assert "--checkpoint FILE" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# ---- timm


@pytest.fixture(scope="module")
def network():
    import timm

    torch.manual_seed(0)
    return timm.create_model(NAME, pretrained=False).eval()


def timm_config(path, **values):
    return NetworkConfig(source="timm", name=NAME, path=str(path), **values)


def save(network, path, prefix=""):
    state = {prefix + key: value.contiguous() for key, value in network.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)
    return path


@pytest.mark.parametrize(("name", "prefix"), [("w.safetensors", ""), ("w.pth", "module.")])
def test_features_of_a_timm_network_are_those_of_torch(tmp_path, network, name, prefix):
    checkpoint = save(network, tmp_path / name, prefix)
    build_timm_encoder(timm_config(checkpoint), tmp_path / "e.onnx", "e")
    crops = np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), np.uint8)
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        images = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = network.forward_head(network.forward_features(images), pre_logits=True).numpy()
    encoder = OnnxEncoder(tmp_path / "e.onnx")
    assert encoder.width == expected.shape[1] != network.num_classes
    np.testing.assert_allclose(encoder(crops), expected, rtol=5e-3, atol=5e-3)
    card = read_card(tmp_path / "e.onnx")
    assert card.source == f"timm:{NAME}"
    assert card.notes["checkpoint_sha256"] == sha256_of(checkpoint)
    assert card.license == "apache-2.0"


def test_weights_without_a_checkpoint_come_from_timms_repository(tmp_path, network, hub):
    hub.add("model.safetensors", save(network, tmp_path / "w.safetensors").read_bytes())
    build_timm_encoder(timm_config(""), tmp_path / "e.onnx", "e", downloader=hub)
    assert hub.requests == [(network.pretrained_cfg["hf_hub_id"], "model.safetensors", "main")]
    assert read_card(tmp_path / "e.onnx").notes["revision"] == COMMIT
    shutil.rmtree(hub.root)
    with pytest.raises(CeflError, match=r"give it with --checkpoint FILE"):
        build_timm_encoder(timm_config(""), tmp_path / "x.onnx", "x", downloader=hub)


def test_weights_of_another_architecture_are_refused(tmp_path, network):
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    removed = state.pop("blocks.0.norm1.weight")
    state["extra"] = removed
    state["norm.weight"] = torch.zeros(3)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        CeflError, match=r"missing blocks.0.norm1.weight; unexpected extra; norm.weight is \(3,\), expected"
    ):
        build_timm_encoder(timm_config(tmp_path / "w.safetensors"), tmp_path / "e.onnx", "e")


def test_a_pickled_model_is_not_run(tmp_path, network):
    torch.save(network, tmp_path / "w.pt")
    with pytest.raises(CeflError, match="contains more than tensors, and code in a file is never run"):
        build_timm_encoder(timm_config(tmp_path / "w.pt"), tmp_path / "e.onnx", "e")


def test_unknown_names_are_refused_with_a_near_one(tmp_path):
    with pytest.raises(CeflError, match=r"timm:resnet_18: .*did you mean resnet18"):
        build_timm_encoder(NetworkConfig(source="timm", name="resnet_18"), tmp_path / "e.onnx", "e")
    with pytest.raises(CeflError, match="write timm:NAME or hub:OWNER/NAME"):
        build_network_encoder(NetworkConfig(source="timm"), tmp_path / "e.onnx", "e")


def test_an_entry_of_the_configuration_is_made_by_its_name(tmp_path):
    write_small(tmp_path / "n.onnx")
    (tmp_path / "configs").mkdir()
    entry = "networks:\n  mine: {path: n.onnx, mean: [0, 0, 0], std: [1, 1, 1], license: MIT}\n"
    (tmp_path / "configs/encoder.yaml").write_text(entry)
    done = run_cli_in_process("encoder", "mine", "--quiet", cwd=tmp_path, check=True)
    assert done.stdout.strip() == "artifacts/weights/mine.onnx"
    assert read_card(tmp_path / "artifacts/weights/mine.onnx").license == "MIT"
    (tmp_path / "n.json").write_text("{}")
    refused = run_cli_in_process("encoder", "mine", "--force", cwd=tmp_path)
    assert "n.json beside it would be read too, and DVC does not watch it" in refused.stderr
