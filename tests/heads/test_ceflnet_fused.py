"""Fused form of the full head: the oracle for values and gradients is the head in equation order."""

import multiprocessing
import platform
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ceflpipe.stages.heads.ceflnet import (
    CEFLNetHead,
    ceflnet_fused,
    gather_clips,
    max_pool_fused,
    max_pool_over_clips,
    run_head,
)
from ceflpipe.stages.heads.clip_sampling import unique_frames
from ceflpipe.stages.heads.feature_bank import FeatureBank
from ceflpipe.stages.heads.layers import BatchedDropout, init_weights
from ceflpipe.stages.heads.malloc import keep_freed_memory
from ceflpipe.stages.heads.registry import HEADS, build_head


@pytest.fixture(params=[(2, 3, 7, 5, 20), (1, 1, 1, 1, 1), (3, 2, 9, 15, 40)], ids=str)
def fixed_inputs(request):
    """A head, the distinct frames of some videos, and the indices that make clips of them; clips and a clip may repeat a
    frame."""
    models, videos, clips, frames, distinct = request.param
    head = CEFLNetHead(models, 24, 4).double()
    init_weights(head, [torch.Generator().manual_seed(m) for m in range(models)])
    inverse = torch.randint(distinct, (models, videos, clips, frames), generator=torch.Generator().manual_seed(9))
    return head, torch.rand(models, videos, distinct, 24, dtype=torch.float64), inverse


def clips_of(frames, inverse):
    """Copy the frames of every clip one by one."""
    clips = torch.empty(*inverse.shape, frames.shape[-1], dtype=frames.dtype)
    for m, b, n, k in np.ndindex(*inverse.shape):
        clips[m, b, n, k] = frames[m, b, inverse[m, b, n, k]]
    return clips


def test_values_are_equal(fixed_inputs):
    head, frames, inverse = fixed_inputs
    plain, fused = head(clips_of(frames, inverse), BatchedDropout(None)), ceflnet_fused(head, frames, inverse)
    for name in ("logits", "embedding", "intensity", "frame_weights"):
        torch.testing.assert_close(getattr(fused, name), getattr(plain, name), rtol=1e-10, atol=1e-12)


def test_gradients_of_every_parameter_are_equal(fixed_inputs):
    head, frames, inverse = fixed_inputs
    head(clips_of(frames, inverse), BatchedDropout(None)).logits.square().sum().backward()
    plain = {name: p.grad.clone() for name, p in head.named_parameters()}
    head.zero_grad()
    ceflnet_fused(head, frames, inverse).logits.square().sum().backward()
    for name, p in head.named_parameters():
        torch.testing.assert_close(
            p.grad, plain[name], rtol=1e-8, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_max_pool_if_clips_tie(kind):
    """Clips 1 and 3 are the same, and clip 2 has no intensity: torch splits the gradient among the maxima."""
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(2, 3, 4, 16, generator=generator, dtype=torch.float64)
    clips[:, :, 3] = clips[:, :, 1]
    scores = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    scores[..., 3] = scores[..., 1]
    intensity = torch.softmax(scores, dim=-1)
    intensity[..., 2] = 0.0
    weight = torch.randn(2, 3, 5, 16, generator=generator, dtype=torch.float64)
    results = []
    for function in (max_pool_over_clips, max_pool_fused):
        a, r = intensity.to(kind if kind == torch.float64 else torch.float32), clips.to(kind)
        a, r = a.detach().requires_grad_(), r.detach().requires_grad_()
        highest = function(a, r)
        (highest * weight.to(highest.dtype)).sum().backward()
        results.append((highest.detach(), a.grad, r.grad))
    for plain, fused in zip(*results, strict=True):
        assert plain.dtype == fused.dtype
        torch.testing.assert_close(fused, plain)
    tied = intensity.to(a.dtype)[..., 1:2] * clips.to(kind)[:, :, None, 1] == results[0][0]
    assert 0.2 < tied.float().mean() < 1, "the clips that tie must have some of the maxima"


@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_the_same_on_a_feature_bank_as_on_its_clips(name):
    """Three videos back to back; sampled frames repeat."""
    rng = np.random.default_rng(0)
    lengths = torch.tensor([9, 4, 30])
    features = torch.from_numpy(rng.normal(size=(43, 16)).astype(np.float16))
    bank = FeatureBank(features, torch.tensor([0, 9, 13]), lengths, torch.tensor([0, 1, 2]), 3)
    head = build_head(name, 2, 16, 3)
    init_weights(head, [torch.Generator().manual_seed(m) for m in range(2)])
    videos = torch.tensor([[2, 0], [1, 2]])
    frames = torch.stack([torch.stack([torch.randint(int(lengths[v]), (3, 5)) for v in row]) for row in videos])
    expected = torch.empty(2, 2, 3, 5, 16)
    for m, b, n, k in np.ndindex(2, 2, 3, 5):
        expected[m, b, n, k] = features[int(bank.start[videos[m, b]]) + int(frames[m, b, n, k])].float()
    clips = unique_frames(frames)
    got = run_head(head, gather_clips(head, bank, videos, clips), clips, BatchedDropout(None))
    torch.testing.assert_close(got.logits, head(expected, BatchedDropout(None)).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_reused_while_training_and_returned_after():
    """Four tensors of 20 MB, allocated and freed ten times: their pages come from the system once or twice, not ten times."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as fresh:  # a process whose memory no other test has used
        default, reusing, returned = fresh.submit(_measure_memory).result()
    assert reusing < default / 2
    assert returned > 60 * 2**20


def _measure_memory() -> tuple[float, float, int]:
    def allocations() -> float:
        """Return how often the memory of the four tensors came from the system."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            [torch.ones(5 << 20) for _ in range(4)]
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        return pages * resource.getpagesize() / (4 * 5 * 4 * 2**20)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    default = allocations()
    with keep_freed_memory():
        reusing, inside = allocations(), resident()
    return default, reusing, inside - resident()
