"""The quicker order of the full head: the oracle is the head in equation order, values and gradients alike."""

import pytest
import torch

from ceflpipe.stages.heads.cefl import CEFL
from ceflpipe.stages.heads.faster import for_training, forward
from ceflpipe.stages.heads.layers import Noise, initialise
from ceflpipe.stages.heads.names import HEADS, make_head


@pytest.fixture(params=[(2, 3, 7, 5), (1, 1, 1, 1), (3, 2, 9, 15)], ids=str)
def both(request):
    models, videos, clips, frames = request.param
    head = CEFL(models, 24, 4).double()
    initialise(head, [torch.Generator().manual_seed(m) for m in range(models)])
    return head, torch.rand(models, videos, clips, frames, 24, dtype=torch.float64)


def test_the_same_values(both):
    head, frames = both
    plain, quick = head(frames, Noise(None)), forward(head, frames)
    for name in ("logits", "embedding", "intensity", "frame_weights"):
        torch.testing.assert_close(getattr(quick, name), getattr(plain, name), rtol=1e-10, atol=1e-12)


def test_the_same_gradients_for_every_parameter(both):
    head, frames = both
    head(frames, Noise(None)).logits.square().sum().backward()
    plain = {name: p.grad.clone() for name, p in head.named_parameters()}
    head.zero_grad()
    forward(head, frames).logits.square().sum().backward()
    for name, p in head.named_parameters():
        torch.testing.assert_close(
            p.grad, plain[name], rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_only_the_full_head_is_computed_in_another_order():
    for name in HEADS:
        head = make_head(name, 1, 16, 3)
        assert (for_training(head) is head) == (name != "cefl"), name
