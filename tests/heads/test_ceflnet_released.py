"""Checkpoints of the authors' released code: their head and encoder are loaded key by key."""

import pytest
import torch
from helpers.runs import make_small_dataset
from safetensors.torch import save_file
from torch import nn

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.encoder.build import build_encoder_weights
from ceflpipe.stages.encoder.checkpoint import to_resnet18_state
from ceflpipe.stages.encoder.weights import load_encoder, resnet18_backbone
from ceflpipe.stages.heads.ceflnet_released import CEFLNetReleased, load_released_state
from ceflpipe.stages.heads.cross_validation import cross_validate
from ceflpipe.stages.heads.layers import BatchedDropout
from ceflpipe.stages.heads.train_config import CVConfig, TrainConfig
from ceflpipe.stages.state_dict import read_state_dict

D, C = 512, 7


def torch_head():
    """Torch's own layers under the keys of the released state dict."""
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "attn": nn.MultiheadAttention(D, 4),
            "norm1": nn.LayerNorm(D),
            "beta": nn.Sequential(nn.Linear(2 * D, 1)),
            "fc": nn.Linear(2 * D, D),
            "temp_attn": nn.ModuleDict({"attn": nn.Sequential(nn.Conv1d(D, 1, 1, bias=False))}),
            "classifier": nn.Sequential(
                nn.Linear(D, 256),
                nn.ReLU(),
                nn.Linear(256, 128),
                nn.ReLU(),
                nn.Dropout(0.4),
                nn.Sequential(nn.Linear(128, C)),
            ),
        }
    ).eval()


def forward_in_torch(head, frames):
    """The released head in torch's layers, for one video (n, k, d)."""
    clips = []
    for clip in frames:
        attended = head["norm1"](clip + head["attn"](clip[:, None], clip[:, None], clip[:, None])[0][:, 0])
        summary = attended.max(dim=0).values
        both = torch.stack([torch.cat([f, summary]) for f in clip])
        weight = torch.sigmoid(head["beta"](both))
        clips.append(head["fc"]((weight * both).sum(0) / weight.sum(0)))
    stack = torch.stack(clips)
    intensity = torch.softmax(head["temp_attn"]["attn"](stack.T[None])[0, 0], dim=0)
    return head["classifier"]((intensity[:, None] * stack).max(dim=0).values), intensity


def test_the_loaded_head_equals_torchs_layers():
    reference = torch_head()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    state = {f"module.{k}": v for k, v in reference.state_dict().items()}
    state |= {f"module.{k}": v for k, v in resnet18_backbone().state_dict().items()}
    head = CEFLNetReleased(2, D, C)
    load_released_state(head, state, "x.pth")
    frames = torch.rand(2, 3, 7, 5, D)
    with torch.no_grad():
        got = head(frames, BatchedDropout(None))
        for m, b in ((0, 0), (1, 2)):
            logits, intensity = forward_in_torch(reference, frames[m, b])
            torch.testing.assert_close(got.logits[m, b], logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(got.intensity[m, b, 0], intensity)


def test_the_encoder_is_loaded_too():
    encoder = resnet18_backbone().state_dict()
    state = {
        **{f"module.{k}": v for k, v in encoder.items()},
        **{f"module.{k}": v for k, v in torch_head().state_dict().items()},
    }
    got, report = to_resnet18_state(state, "x.pth")
    assert all(torch.equal(got[key], encoder[key]) for key in encoder)
    assert "temp_attn.attn.0.weight" in report["dropped_heads"]


SHAPES = {
    "attn.in_proj_weight": (1536, 512), "attn.in_proj_bias": (1536,),
    "attn.out_proj.weight": (512, 512), "attn.out_proj.bias": (512,),
    "norm1.weight": (512,), "norm1.bias": (512,), "beta.0.weight": (1, 1024), "beta.0.bias": (1,),
    "fc.weight": (512, 1024), "fc.bias": (512,), "fc2.weight": (512, 2048), "fc2.bias": (512,),
    "temp_attn.attn.0.weight": (1, 512, 1), "classifier.0.weight": (256, 512), "classifier.0.bias": (256,),
    "classifier.2.weight": (128, 256), "classifier.2.bias": (128,),
    "classifier.5.0.weight": (7, 128), "classifier.5.0.bias": (7,),
}  # fmt: skip
"""The head in a state dict of the released model: every key with its shape."""


def test_what_the_released_training_script_saves_is_loaded(tmp_path):
    """Encoder and head from one file; with 0 epochs the head is only tested, and equals the file's in every model."""
    generator = torch.Generator().manual_seed(2)
    state = resnet18_backbone().state_dict()
    state |= {key: 0.02 * torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
    saved = {"epoch": 87, "state_dict": {f"module.{key}": value for key, value in state.items()}, "prec1": 0.5398}
    torch.save(saved, tmp_path / "model_best.pth.tar")
    report = build_encoder_weights(f"file:{tmp_path}/model_best.pth.tar", tmp_path / "e.safetensors", "e")
    assert report["dropped_heads"] == ", ".join(sorted(SHAPES))
    assert torch.equal(load_encoder(tmp_path / "e.safetensors").state_dict()["conv1.weight"], state["conv1.weight"])

    labels = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    data = make_small_dataset(tmp_path, labels, subjects=3, with_videos=False)
    config = TrainConfig(head="released", epochs=0, precision="fp32")
    run = cross_validate(
        data.manifest, data.table, config, CVConfig(folds=3), tmp_path / "run", init=tmp_path / "model_best.pth.tar"
    )
    assert [note for note in run.config["notes"] if "passed over fc2.bias, fc2.weight, a layer" in note]
    head = run.head()
    for m in range(3):
        torch.testing.assert_close(head.out.weight[m].T, state["fc.weight"])
        torch.testing.assert_close(head.classify3.weight[m].T, state["classifier.5.0.weight"])


def test_keys_that_do_not_fit_are_listed():
    state = torch_head().state_dict()
    del state["beta.0.weight"]
    state["extra.weight"] = torch.zeros(2)
    with pytest.raises(
        CeflError,
        match=r"missing beta\.0\.weight; unexpected extra\.weight; classifier\.5\.0\.weight is \(7, 128\), expected \(6, 128\)",
    ):
        load_released_state(CEFLNetReleased(1, D, 6), state, "x.pth")


def test_features_of_another_width_than_the_weights_are_refused_in_one_line():
    with pytest.raises(CeflError, match=r"x\.pth: .* of width 512, .* here have width 64; .* --init$") as error:
        load_released_state(CEFLNetReleased(1, 64, C), torch_head().state_dict(), "x.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["plain.pth", "nested.pth", "head.safetensors"])
def test_state_dicts_are_read_from_torch_and_safetensors_files(tmp_path, name):
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    if name.endswith(".safetensors"):
        save_file(state, tmp_path / name)
    else:
        torch.save({"epoch": 3, "state_dict": state} if name == "nested.pth" else state, tmp_path / name)
    got = read_state_dict(tmp_path / name, "x")
    assert got.keys() == state.keys()
    assert all(torch.equal(got[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("content", "words"),
    [({"epoch": 3}, "no tensors in it"), ({"f": print}, "contains more than tensors"), (None, "no such file")],
)
def test_files_without_a_state_dict_are_refused(tmp_path, content, words):
    if content is not None:
        torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CeflError, match=words):
        read_state_dict(tmp_path / "x.pth", "--init x.pth")
