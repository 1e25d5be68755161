"""Tables 8 and 9: counted costs against closed forms, and against the paper."""

import pytest
import torch
from torch import nn

from ceflpipe.stages.report.complexity import (
    c3d_cost,
    c3d_lstm_cost,
    c3d_published_cost,
    ceflnet_cost,
    count_macs,
    count_parameters,
)
from ceflpipe.stages.report.paper_comparison import PAPER_COSTS, PAPER_FRAMES

PAPER = {cost.name: cost for cost in PAPER_COSTS}

D, C = 512, 6


def resnet18_macs(input_size):
    """MACs of ResNet-18 without fc: kernel area x input channels x output channels x output pixels, layer by layer."""
    total = 49 * 3 * 64 * (input_size // 2) ** 2
    in_channels, pixels = 64, (input_size // 4) ** 2
    for stage, width in enumerate((64, 128, 256, 512)):
        if stage:
            pixels //= 4
            total += in_channels * width * pixels  # the shortcut
        total += 9 * in_channels * width * pixels + 3 * 9 * width * width * pixels
        in_channels = width
    return total


def cefl_macs(n, k):
    sal = n * (3 * k * D * D + 2 * k * k * D)
    lrl = n * (k * 2 * D + D * D)
    eian = n * D * C + C * D
    return sal + lrl + eian


@pytest.mark.parametrize(("n", "k"), [(7, 5), (1, 1), (9, 15)])
def test_counts_agree_with_the_closed_form(n, k):
    cost = ceflnet_cost("cefl", n, k, C)
    assert cost.encoder_macs == n * k * resnet18_macs(224)
    assert cost.head_macs == cefl_macs(n, k)
    assert cost.head_parameters == 3 * D * D + 2 * D + D * D + 2 * D * C


def test_macs_of_single_layers():
    assert count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.empty(1, 3, 10, 10)) == 9 * 3 * 8 * 100
    assert count_macs(nn.Linear(7, 5), torch.empty(4, 7)) == 4 * 7 * 5


@pytest.mark.parametrize(("frames", "paper_macs"), [(k, macs) for k, macs, _ in PAPER_FRAMES])
def test_table_9_to_half_a_percent(frames, paper_macs):
    assert ceflnet_cost("cefl", 7, frames).macs / 1e9 == pytest.approx(paper_macs, rel=0.005)


@pytest.mark.parametrize("head", ["cefl", "released"])
def test_parameters_of_the_full_model_to_five_percent(head):
    assert ceflnet_cost(head).parameters / 1e6 == pytest.approx(PAPER["CEFLNet"].parameters, rel=0.05)


def test_c3d_against_its_published_layers():
    """Tran et al. 2015: eight convolutions and three fully connected layers."""
    channels = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    parameters = sum(27 * a * b + b for a, b in channels)
    parameters += sum(a * b + b for a, b in [(8192, 4096), (4096, 4096), (4096, 487)])
    counted, macs = c3d_cost()
    assert counted == parameters
    assert counted / 1e6 == pytest.approx(PAPER["C3D"].parameters, rel=0.001)
    assert macs / 1e9 == pytest.approx(PAPER["C3D"].macs, rel=0.02)
    # 16 frames of 112 x 112: output size of each convolution
    voxels = [16 * 112**2, 16 * 56**2, 8 * 28**2, 8 * 28**2, 4 * 14**2, 4 * 14**2, 2 * 7**2, 2 * 7**2]
    published = (
        sum(27 * a * b * v for (a, b), v in zip(channels, voxels, strict=True)) + 8192 * 4096 + 4096**2 + 4096 * 487
    )
    assert c3d_published_cost()[1] == published


def test_c3d_lstm_against_its_published_layers():
    """fc6 features of 16-frame segments, an LSTM of 256 cells (in torch with two bias vectors per gate)."""
    parameters, macs = c3d_lstm_cost(num_classes=6)
    lstm = 4 * 256 * (4096 + 256 + 2)
    convolutions_and_fc6 = 27_655_936 + 8192 * 4096 + 4096
    assert parameters == convolutions_and_fc6 + lstm + 256 * 6 + 6
    per_segment = c3d_published_cost()[1] - 4096**2 - 4096 * 487
    assert macs == 6 * (per_segment + 4 * 256 * (4096 + 256)) + 256 * 6


def test_counting_allocates_no_memory():
    """It runs on the meta device, whose tensors have no data."""
    with torch.device("meta"):
        network = nn.Linear(10**6, 10**6)
        assert count_parameters(network) == 10**12 + 10**6
        assert count_macs(network, torch.empty(1, 10**6)) == 10**12
