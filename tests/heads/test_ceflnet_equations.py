"""Every equation of the paper against itself, written as plain loops in float64."""

import math

import numpy as np
import pytest
import torch

from ceflpipe.stages.heads.baselines import FAN
from ceflpipe.stages.heads.ceflnet import EIAN, LRL, SAL, CEFLNetHead
from ceflpipe.stages.heads.ceflnet_released import MultiHeadAttention
from ceflpipe.stages.heads.layers import (
    BatchedDropout,
    BatchedLayerNorm,
    BatchedLinear,
    BatchedLSTM,
    HeadOutput,
    init_weights,
)
from ceflpipe.stages.heads.losses import binary_cross_entropy, cross_entropy
from ceflpipe.stages.heads.registry import HEADS, build_head

M, B, N, K, D, C = 2, 3, 4, 5, 8, 6


def ready(module, models=M, seed=0):
    init_weights(module, [torch.Generator().manual_seed(seed + m) for m in range(models)])
    return module.double()


def frames(seed=0):
    return torch.rand(M, B, N, K, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(z):
    e = [math.exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


def sal_by_hand(x, wq, wk, wv):
    q, k, v = x @ wq, x @ wk, x @ wv
    out = np.zeros_like(x)
    for i in range(len(x)):
        attention = softmax([float(q[i] @ k[j]) / math.sqrt(x.shape[1]) for j in range(len(x))])
        for j in range(len(x)):
            out[i] += attention[j] * v[j]
    return out


def test_equation_1_self_attention():
    sal, x = ready(SAL(M, D)), frames()
    got = sal(x)
    for m, b, n in np.ndindex(M, B, N):
        weights = [part.weight[m].detach().numpy() for part in (sal.query, sal.key, sal.value)]
        np.testing.assert_allclose(got[m, b, n].detach(), sal_by_hand(x[m, b, n].numpy(), *weights), rtol=1e-10)


def test_equation_1_is_torchs_scaled_dot_product_attention():
    sal, x = ready(SAL(M, D)), frames()
    expected = torch.nn.functional.scaled_dot_product_attention(sal.query(x), sal.key(x), sal.value(x))
    torch.testing.assert_close(sal(x), expected)


def test_equations_2_and_3_local_global_relation():
    lrl, x = ready(LRL(M, D)), frames()
    got, weights = lrl(x)
    for m, b, n in np.ndindex(M, B, N):
        f, q0, q1 = x[m, b, n].numpy(), lrl.gate.weight[m].detach().numpy()[:, 0], lrl.out.weight[m].detach().numpy()
        summary = sum(f) / K
        w = [1 / (1 + math.exp(-float(np.concatenate([summary, f[k]]) @ q0))) for k in range(K)]  # (2)
        r = (sum(w[k] * f[k] for k in range(K)) / sum(w)) @ q1  # (3)
        np.testing.assert_allclose(weights[m, b, n].detach(), w, rtol=1e-10)
        np.testing.assert_allclose(got[m, b, n].detach(), r, rtol=1e-9)


def test_equations_4_to_9_intensity_activation():
    eian = ready(EIAN(M, D, C))
    v = torch.rand(M, B, N, D, dtype=torch.float64)
    got = eian(v)
    for m, b in np.ndindex(M, B):
        w, q2 = eian.score.weight[m].detach().numpy(), eian.classify.weight[m].detach().numpy()
        for c in range(C):
            a = softmax([float(v[m, b, n].numpy() @ w[:, c]) for n in range(N)])  # (5)
            np.testing.assert_allclose(got.intensity[m, b, c].detach(), a, rtol=1e-10)
            maps = [a[n] * v[m, b, n].numpy() for n in range(N)]  # (7)
            pooled = np.array([max(maps[n][i] for n in range(N)) for i in range(D)])  # (8)
            np.testing.assert_allclose(float(got.logits[m, b, c].detach()), float(pooled @ q2[:, c]), rtol=1e-9)  # (9)
            located = got.located_clip(torch.full((M, B), c))
            assert int(located[m, b]) == int(np.argmax(a))  # (6)


def test_equation_11_in_log_space():
    logits = torch.randn(M, B, C, dtype=torch.float64) * 3
    labels = torch.randint(0, C, (M, B))
    got = binary_cross_entropy(logits, labels)
    for m, b in np.ndindex(M, B):
        p = softmax(logits[m, b].tolist())
        y = [1.0 if c == int(labels[m, b]) else 0.0 for c in range(C)]
        expected = -sum(y[c] * math.log(p[c]) + (1 - y[c]) * math.log(1 - p[c]) for c in range(C))
        assert float(got[m, b]) == pytest.approx(expected, rel=1e-5, abs=1e-5)  # the loss is taken in float32


def test_equation_11_stays_finite_where_a_probability_rounds_to_one():
    logits = torch.tensor([[[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]]], requires_grad=True)
    loss = binary_cross_entropy(logits, torch.tensor([[0, 0]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert float(loss[0, 0]) < 1e-6 < float(loss[0, 1])


def test_cross_entropy_is_torchs():
    logits, labels = torch.randn(M, B, C), torch.randint(0, C, (M, B))
    for m in range(M):
        torch.testing.assert_close(
            cross_entropy(logits, labels)[m].mean(), torch.nn.functional.cross_entropy(logits[m], labels[m])
        )


def test_fan_equations():
    fan, x = ready(FAN(M, D, C)), frames()
    got = fan(x, BatchedDropout(None))
    for m, b in np.ndindex(M, B):
        f = x[m, b].flatten(0, 1).numpy()

        def sigmoid_of(vector, layer, m=m):
            return 1 / (
                1 + math.exp(-float(vector @ layer.weight[m].detach().numpy()[:, 0]) - float(layer.bias[m, 0, 0]))
            )

        alpha = [sigmoid_of(v, fan.alpha) for v in f]
        anchor = sum(a * v for a, v in zip(alpha, f, strict=True)) / sum(alpha)
        both = [np.concatenate([v, anchor]) for v in f]
        weight = [a * sigmoid_of(v, fan.beta) for a, v in zip(alpha, both, strict=True)]
        video = sum(w * v for w, v in zip(weight, both, strict=True)) / sum(weight)
        np.testing.assert_allclose(got.embedding[m, b].detach(), video, rtol=1e-9)


def test_lstm_is_torchs():
    ours = ready(BatchedLSTM(M, D, 7))
    x = torch.rand(M, B, 9, D, dtype=torch.float64)
    got = ours(x)
    for m in range(M):
        theirs = torch.nn.LSTM(D, 7, batch_first=True).double()
        theirs.weight_ih_l0.data = ours.from_input.weight[m].T.clone()
        theirs.weight_hh_l0.data = ours.from_hidden.weight[m].T.clone()
        theirs.bias_ih_l0.data = ours.from_input.bias[m, 0].clone()
        theirs.bias_hh_l0.data.zero_()
        torch.testing.assert_close(got[m], theirs(x[m])[1][0][0])


def test_released_attention_is_torchs_multihead_attention_with_residual_and_norm():
    ours, x = ready(MultiHeadAttention(M, D)), frames()
    got = ours(x, BatchedDropout(None))
    for m in range(M):
        theirs = torch.nn.MultiheadAttention(D, 4, batch_first=True).double()
        theirs.in_proj_weight.data = torch.cat([layer.weight[m].T for layer in (ours.query, ours.key, ours.value)])
        theirs.in_proj_bias.data = torch.cat([layer.bias[m, 0] for layer in (ours.query, ours.key, ours.value)])
        theirs.out_proj.weight.data, theirs.out_proj.bias.data = (
            ours.out.weight[m].T.clone(),
            ours.out.bias[m, 0].clone(),
        )
        flat = x[m].flatten(0, 1)
        expected = torch.nn.functional.layer_norm(flat + theirs(flat, flat, flat)[0], (D,))
        torch.testing.assert_close(got[m].flatten(0, 1), expected)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_flow_to_every_parameter(name):
    head = ready(build_head(name, M, D, C))
    loss = binary_cross_entropy(head(frames(), BatchedDropout(None)).logits, torch.randint(0, C, (M, B)))
    loss.sum().backward()
    for key, parameter in head.named_parameters():
        if ("bias" in key and "score" in key) or key in ("attention.key.bias",):
            continue  # a shift of all keys, or of all scores, does not change a softmax
        assert (parameter.grad.flatten(1).abs().sum(dim=1) > 0).all(), key


@pytest.mark.parametrize("name", HEADS)
def test_a_model_does_not_feel_its_neighbours(name):
    x, labels = frames(), torch.randint(0, C, (M, B))
    together = ready(build_head(name, M, D, C))
    noise = BatchedDropout([torch.Generator().manual_seed(9), torch.Generator().manual_seed(10)])
    out = together(x, noise)
    binary_cross_entropy(out.logits, labels).sum().backward()
    for m in range(M):
        alone = ready(build_head(name, 1, D, C), models=1, seed=m)
        own = alone(x[m : m + 1], BatchedDropout([torch.Generator().manual_seed(9 + m)]))
        torch.testing.assert_close(own.logits[0], out.logits[m])
        binary_cross_entropy(own.logits, labels[m : m + 1]).sum().backward()
        for ours, theirs in zip(alone.parameters(), together.parameters(), strict=True):
            torch.testing.assert_close(ours.grad[0], theirs.grad[m])


@pytest.mark.parametrize("name", ["cefl", "released"])
def test_intensity_sums_to_one_over_clips(name):
    out = ready(build_head(name, M, D, C))(frames(), BatchedDropout(None))
    torch.testing.assert_close(out.intensity.sum(-1), torch.ones_like(out.intensity[..., 0]))


@pytest.mark.parametrize("name", ["cefl", "sal", "sal+lrl", "mean", "fan", "released"])
def test_frames_of_a_clip_may_come_in_any_order(name):
    """Equations 1 to 3 sum over the frames of a clip and know no order among them (the LSTM does)."""
    head, x = ready(build_head(name, M, D, C)), frames()
    shuffled = x[:, :, :, torch.tensor([3, 0, 4, 1, 2])]
    torch.testing.assert_close(head(x, BatchedDropout(None)).logits, head(shuffled, BatchedDropout(None)).logits)


@pytest.mark.parametrize("name", ["cefl", "released"])
def test_clips_permuted_permute_the_intensity_alone(name):
    """A kernel of one clip, a softmax and a maximum over clips: order among clips moves the map, not the label."""
    head, x = ready(build_head(name, M, D, C)), frames()
    order = torch.tensor([2, 0, 3, 1])
    one, other = head(x, BatchedDropout(None)), head(x[:, :, order], BatchedDropout(None))
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.intensity[..., order], other.intensity)


def test_the_lstm_feels_time():
    head, x = ready(build_head("lstm", M, D, C)), frames()
    assert not torch.allclose(head(x, BatchedDropout(None)).logits, head(x.flip(2), BatchedDropout(None)).logits)


def test_dropout_keeps_the_mean_and_drops_the_share():
    noise = BatchedDropout([torch.Generator().manual_seed(0)])
    dropped = noise.dropout(torch.ones(1, 200, 500), 0.4)
    assert float((dropped == 0).double().mean()) == pytest.approx(0.4, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(BatchedDropout(None).dropout(dropped, 0.4), dropped)


def test_linear_starts_as_torchs_does():
    """Same range: uniform within 1 / sqrt(inputs); the spread of a wide layer shows it."""
    layer = BatchedLinear(1, 400, 300)
    init_weights(layer, [torch.Generator().manual_seed(0)])
    theirs = torch.nn.Linear(400, 300)
    assert float(layer.weight.detach().abs().max()) <= 1 / 20
    assert float(layer.weight.detach().std()) == pytest.approx(float(theirs.weight.detach().std()), rel=0.02)


def test_layer_norm_is_torchs():
    x = torch.randn(M, B, D)
    ours = BatchedLayerNorm(M, D)
    torch.testing.assert_close(ours(x), torch.nn.functional.layer_norm(x, (D,)))


def test_heads_without_a_map_locate_nothing():
    assert (
        HeadOutput(torch.zeros(1, 1, C), torch.zeros(1, 1, D)).located_clip(torch.zeros(1, 1, dtype=torch.long)) is None
    )


def test_full_head_has_about_the_papers_parameters():
    """12.83 M in table 8 with the encoder's 11.18 M."""
    encoder = 11_176_512
    for name in ("cefl", "released"):
        total = encoder + sum(p.numel() for p in build_head(name, 1, 512, 6).parameters())
        assert abs(total / 12.83e6 - 1) < 0.05, (name, total)
    assert isinstance(build_head("paper", 1, 512, 6), CEFLNetHead)
