"""The quicker order of the full head: the oracle is the head in equation order, values and gradients alike."""

import multiprocessing
import platform
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from ceflpipe.stages.heads.ceflnet import CEFLNetHead, ceflnet_fused, fused_head, max_pool_fused, max_pool_over_clips
from ceflpipe.stages.heads.clip_sampling import unique_frames
from ceflpipe.stages.heads.feature_bank import FeatureBank
from ceflpipe.stages.heads.layers import BatchedDropout, init_weights
from ceflpipe.stages.heads.malloc import keep_freed_memory
from ceflpipe.stages.heads.registry import HEADS, build_head


@pytest.fixture(params=[(2, 3, 7, 5, 20), (1, 1, 1, 1, 1), (3, 2, 9, 15, 40)], ids=str)
def both(request):
    """A head, the distinct frames of some videos, and their places in clips; a frame stands in several clips, or twice in one."""
    models, videos, clips, frames, distinct = request.param
    head = CEFLNetHead(models, 24, 4).double()
    init_weights(head, [torch.Generator().manual_seed(m) for m in range(models)])
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
    plain, quick = head(spread(frames, place), BatchedDropout(None)), ceflnet_fused(head, frames, place)
    for name in ("logits", "embedding", "intensity", "frame_weights"):
        torch.testing.assert_close(getattr(quick, name), getattr(plain, name), rtol=1e-10, atol=1e-12)


def test_the_same_gradients_for_every_parameter(both):
    head, frames, place = both
    head(spread(frames, place), BatchedDropout(None)).logits.square().sum().backward()
    plain = {name: p.grad.clone() for name, p in head.named_parameters()}
    head.zero_grad()
    ceflnet_fused(head, frames, place).logits.square().sum().backward()
    for name, p in head.named_parameters():
        torch.testing.assert_close(
            p.grad, plain[name], rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_strongest_clip_also_where_clips_tie(kind):
    """Clips 1 and 3 are the same, and clip 2 has no intensity: torch shares the gradient among the highest."""
    draw = torch.Generator().manual_seed(0)
    clips = torch.randn(2, 3, 4, 16, generator=draw, dtype=torch.float64)
    clips[:, :, 3] = clips[:, :, 1]
    scores = torch.randn(2, 3, 5, 4, generator=draw, dtype=torch.float64)
    scores[..., 3] = scores[..., 1]
    intensity = torch.softmax(scores, dim=-1)
    intensity[..., 2] = 0.0
    weight = torch.randn(2, 3, 5, 16, generator=draw, dtype=torch.float64)
    found = []
    for function in (max_pool_over_clips, max_pool_fused):
        a, r = intensity.to(kind if kind == torch.float64 else torch.float32), clips.to(kind)
        a, r = a.detach().requires_grad_(), r.detach().requires_grad_()
        highest = function(a, r)
        (highest * weight.to(highest.dtype)).sum().backward()
        found.append((highest.detach(), a.grad, r.grad))
    for plain, quick in zip(*found, strict=True):
        assert plain.dtype == quick.dtype
        torch.testing.assert_close(quick, plain)
    tied = intensity.to(a.dtype)[..., 1:2] * clips.to(kind)[:, :, None, 1] == found[0][0]
    assert 0.2 < tied.float().mean() < 1, "the clips that tie must be the highest somewhere"


@pytest.mark.parametrize("name", HEADS)
def test_every_head_says_the_same_of_a_table_as_of_its_clips(name):
    """Three videos back to back in a table; drawn frames repeat. By table and index against the head on the clips."""
    rng = np.random.default_rng(0)
    lengths = torch.tensor([9, 4, 30])
    table = torch.from_numpy(rng.normal(size=(43, 16)).astype(np.float16))
    data = FeatureBank(table, torch.tensor([0, 9, 13]), lengths, torch.tensor([0, 1, 2]), 3)
    head = build_head(name, 2, 16, 3)
    init_weights(head, [torch.Generator().manual_seed(m) for m in range(2)])
    videos = torch.tensor([[2, 0], [1, 2]])
    frames = torch.stack([torch.stack([torch.randint(int(lengths[v]), (3, 5)) for v in row]) for row in videos])
    clips = torch.empty(2, 2, 3, 5, 16)
    for m, b, n, k in np.ndindex(2, 2, 3, 5):
        clips[m, b, n, k] = table[int(data.start[videos[m, b]]) + int(frames[m, b, n, k])].float()
    got = fused_head(head)(data, videos, unique_frames(frames), BatchedDropout(None))
    torch.testing.assert_close(got.logits, head(clips, BatchedDropout(None)).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_freed_memory_is_kept_while_training_and_given_back_after():
    """Four pieces of 20 MB, taken and freed ten times: the system hands out their pages once or twice, not ten times."""
    with multiprocessing.get_context("spawn").Pool(1) as fresh:  # whose memory no other test has touched
        before, while_kept, given_back = fresh.apply(_memory)
    assert while_kept < before / 2
    assert given_back > 60 * 2**20


def _memory() -> tuple[float, float, int]:
    def asked() -> float:
        """Return how often the memory of the four pieces was asked of the system."""
        earlier = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            [torch.ones(5 << 20) for _ in range(4)]
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - earlier
        return pages * resource.getpagesize() / (4 * 5 * 4 * 2**20)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = asked()
    with keep_freed_memory():
        while_kept, inside = asked(), resident()
    return before, while_kept, inside - resident()
