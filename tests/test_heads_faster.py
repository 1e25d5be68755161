"""The quicker order of the full head: the oracle is the head in equation order, values and gradients alike."""

import numpy as np
import pytest
import torch

from ceflpipe.stages.heads.cefl import CEFL
from ceflpipe.stages.heads.faster import for_training, forward
from ceflpipe.stages.heads.layers import Noise, initialise
from ceflpipe.stages.heads.names import HEADS, make_head
from ceflpipe.stages.heads.sampling import each_once
from ceflpipe.stages.heads.table import Data


@pytest.fixture(params=[(2, 3, 7, 5, 20), (1, 1, 1, 1, 1), (3, 2, 9, 15, 40)], ids=str)
def both(request):
    """A head, the distinct frames of some videos, and their places in clips; a frame stands in several clips, or twice in one."""
    models, videos, clips, frames, distinct = request.param
    head = CEFL(models, 24, 4).double()
    initialise(head, [torch.Generator().manual_seed(m) for m in range(models)])
    place = torch.randint(distinct, (models, videos, clips, frames), generator=torch.Generator().manual_seed(9))
    return head, torch.rand(models, videos, distinct, 24, dtype=torch.float64), place


def spread(frames, place):
    """Every clip's own copies of its frames, one by one."""
    clips = torch.empty(*place.shape, frames.shape[-1], dtype=frames.dtype)
    for m, b, n, k in np.ndindex(*place.shape):
        clips[m, b, n, k] = frames[m, b, place[m, b, n, k]]
    return clips


def test_the_same_values(both):
    head, frames, place = both
    plain, quick = head(spread(frames, place), Noise(None)), forward(head, frames, place)
    for name in ("logits", "embedding", "intensity", "frame_weights"):
        torch.testing.assert_close(getattr(quick, name), getattr(plain, name), rtol=1e-10, atol=1e-12)


def test_the_same_gradients_for_every_parameter(both):
    head, frames, place = both
    head(spread(frames, place), Noise(None)).logits.square().sum().backward()
    plain = {name: p.grad.clone() for name, p in head.named_parameters()}
    head.zero_grad()
    forward(head, frames, place).logits.square().sum().backward()
    for name, p in head.named_parameters():
        torch.testing.assert_close(
            p.grad, plain[name], rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", HEADS)
def test_every_head_says_the_same_of_a_table_as_of_its_clips(name):
    """Three videos back to back in a table; drawn frames repeat. By table and index against the head on the clips."""
    rng = np.random.default_rng(0)
    lengths = torch.tensor([9, 4, 30])
    table = torch.from_numpy(rng.normal(size=(43, 16)).astype(np.float16))
    data = Data(table, torch.tensor([0, 9, 13]), lengths, torch.tensor([0, 1, 2]), 3)
    head = make_head(name, 2, 16, 3)
    initialise(head, [torch.Generator().manual_seed(m) for m in range(2)])
    videos = torch.tensor([[2, 0], [1, 2]])
    frames = torch.stack([torch.stack([torch.randint(int(lengths[v]), (3, 5)) for v in row]) for row in videos])
    clips = torch.empty(2, 2, 3, 5, 16)
    for m, b, n, k in np.ndindex(2, 2, 3, 5):
        clips[m, b, n, k] = table[int(data.start[videos[m, b]]) + int(frames[m, b, n, k])].float()
    got = for_training(head)(data, videos, each_once(frames), Noise(None))
    torch.testing.assert_close(got.logits, head(clips, Noise(None)).logits, rtol=1e-4, atol=1e-5)
