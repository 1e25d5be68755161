"""A checkpoint of the authors' released code: its head and its encoder are found under their names."""

import pytest
import torch
from torch import nn

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.encoder.checkpoint import to_resnet18_state
from ceflpipe.stages.encoder.weights import resnet18_backbone
from ceflpipe.stages.heads.ceflnet_released import CEFLNetReleased, load_released_state
from ceflpipe.stages.heads.layers import BatchedDropout

D, C = 512, 7


def torch_head():
    """Torch's own layers under the names of the released state dict."""
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


def by_torch(head, frames):
    """What method.md says the released code computes, for one video (n, k, d), out of torch's layers."""
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


def test_the_head_says_what_torchs_layers_say():
    theirs = torch_head()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    state = {f"module.{k}": v for k, v in theirs.state_dict().items()}
    state |= {f"module.{k}": v for k, v in resnet18_backbone().state_dict().items()}
    ours = CEFLNetReleased(2, D, C)
    load_released_state(ours, state, "x.pth")
    frames = torch.rand(2, 3, 7, 5, D)
    with torch.no_grad():
        got = ours(frames, BatchedDropout(None))
        for m, b in ((0, 0), (1, 2)):
            logits, intensity = by_torch(theirs, frames[m, b])
            torch.testing.assert_close(got.logits[m, b], logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(got.intensity[m, b, 0], intensity)


def test_its_encoder_is_taken_too():
    encoder = resnet18_backbone().state_dict()
    state = {
        **{f"module.{k}": v for k, v in encoder.items()},
        **{f"module.{k}": v for k, v in torch_head().state_dict().items()},
    }
    got, report = to_resnet18_state(state, "x.pth")
    assert all(torch.equal(got[key], encoder[key]) for key in encoder)
    assert "temp_attn.attn.0.weight" in report["heads dropped"]


def test_what_does_not_fit_is_listed_key_by_key():
    state = torch_head().state_dict()
    del state["beta.0.weight"]
    state["extra.weight"] = torch.zeros(2)
    with pytest.raises(
        CeflError,
        match=r"missing beta\.0\.weight; unexpected extra\.weight; classifier\.5\.0\.weight is \(7, 128\), wanted \(6, 128\)",
    ):
        load_released_state(CEFLNetReleased(1, D, 6), state, "x.pth")
