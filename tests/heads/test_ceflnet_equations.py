"""Every equation of the paper against plain loops in float64, and layers against torch's own."""

import math

import numpy as np
import pytest
import torch

from ceflpipe.stages.heads.baselines import FAN
from ceflpipe.stages.heads.ceflnet import EIAN, LRL, SAL, CEFLNetHead, located_index
from ceflpipe.stages.heads.ceflnet_released import MultiHeadAttention
from ceflpipe.stages.heads.layers import BatchedDropout, BatchedLayerNorm, BatchedLinear, BatchedLSTM, init_weights
from ceflpipe.stages.heads.losses import binary_cross_entropy, cross_entropy
from ceflpipe.stages.heads.registry import HEADS, build_head

M, B, N, K, D, C = 2, 3, 4, 5, 8, 6


def initialized(module, num_models=M, seed=0):
    init_weights(module, [torch.Generator().manual_seed(seed + m) for m in range(num_models)])
    return module.double()


def random_frames(seed=0):
    return torch.rand(M, B, N, K, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(z):
    e = [math.exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


def sal_by_loops(x, wq, wk, wv):
    q, k, v = x @ wq, x @ wk, x @ wv
    out = np.zeros_like(x)
    for i in range(len(x)):
        attention = softmax([float(q[i] @ k[j]) / math.sqrt(x.shape[1]) for j in range(len(x))])
        for j in range(len(x)):
            out[i] += attention[j] * v[j]
    return out


def test_equation_1_self_attention():
    sal, x = initialized(SAL(M, D)), random_frames()
    got = sal(x)
    for m, b, n in np.ndindex(M, B, N):
        weights = [part.weight[m].detach().numpy() for part in (sal.query, sal.key, sal.value)]
        np.testing.assert_allclose(got[m, b, n].detach(), sal_by_loops(x[m, b, n].numpy(), *weights), rtol=1e-10)


def test_equation_1_is_torchs_scaled_dot_product_attention():
    sal, x = initialized(SAL(M, D)), random_frames()
    expected = torch.nn.functional.scaled_dot_product_attention(sal.query(x), sal.key(x), sal.value(x))
    torch.testing.assert_close(sal(x), expected)


def test_equations_2_and_3_local_global_relation():
    lrl, x = initialized(LRL(M, D)), random_frames()
    got, weights = lrl(x)
    for m, b, n in np.ndindex(M, B, N):
        f, q0, q1 = x[m, b, n].numpy(), lrl.gate.weight[m].detach().numpy()[:, 0], lrl.out.weight[m].detach().numpy()
        summary = sum(f) / K
        w = [1 / (1 + math.exp(-float(np.concatenate([summary, f[k]]) @ q0))) for k in range(K)]  # (2)
        r = (sum(w[k] * f[k] for k in range(K)) / sum(w)) @ q1  # (3)
        np.testing.assert_allclose(weights[m, b, n].detach(), w, rtol=1e-10)
        np.testing.assert_allclose(got[m, b, n].detach(), r, rtol=1e-9)


def test_equations_4_to_9_intensity_activation():
    eian = initialized(EIAN(M, D, C))
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
            assert int(located_index(got.intensity, torch.full((M, B), c))[m, b]) == int(np.argmax(a))  # (6)


def test_equation_11_in_log_space():
    logits = torch.randn(M, B, C, dtype=torch.float64) * 3
    labels = torch.randint(0, C, (M, B))
    got = binary_cross_entropy(logits, labels)
    for m, b in np.ndindex(M, B):
        p = softmax(logits[m, b].tolist())
        y = [1.0 if c == int(labels[m, b]) else 0.0 for c in range(C)]
        expected = -sum(y[c] * math.log(p[c]) + (1 - y[c]) * math.log(1 - p[c]) for c in range(C))
        assert float(got[m, b]) == pytest.approx(expected, rel=1e-5, abs=1e-5)  # the loss is computed in float32


def test_equation_11_stays_finite_if_a_probability_rounds_to_one():
    logits = torch.tensor([[[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]]], requires_grad=True)
    loss = binary_cross_entropy(logits, torch.tensor([[0, 0]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert loss[0, 0].item() < 1e-6 < loss[0, 1].item()


def test_cross_entropy_matches_torch():
    logits, labels = torch.randn(M, B, C), torch.randint(0, C, (M, B))
    for m in range(M):
        torch.testing.assert_close(
            cross_entropy(logits, labels)[m].mean(), torch.nn.functional.cross_entropy(logits[m], labels[m])
        )


def test_fan_equations():
    fan, x = initialized(FAN(M, D, C)), random_frames()
    got = fan(x, BatchedDropout(None))
    for m, b in np.ndindex(M, B):
        f = x[m, b].flatten(0, 1).numpy()

        def sigmoid_of(vector, layer, m=m):
            z = float(vector @ layer.weight[m].detach().numpy()[:, 0]) + layer.bias[m, 0, 0].item()
            return 1 / (1 + math.exp(-z))

        alpha = [sigmoid_of(v, fan.alpha) for v in f]
        anchor = sum(a * v for a, v in zip(alpha, f, strict=True)) / sum(alpha)
        both = [np.concatenate([v, anchor]) for v in f]
        weight = [a * sigmoid_of(v, fan.beta) for a, v in zip(alpha, both, strict=True)]
        video = sum(w * v for w, v in zip(weight, both, strict=True)) / sum(weight)
        np.testing.assert_allclose(got.embedding[m, b].detach(), video, rtol=1e-9)


def test_lstm_matches_torch():
    batched, x = initialized(BatchedLSTM(M, D, 7)), torch.rand(M, B, 9, D, dtype=torch.float64)
    got = batched(x)
    for m in range(M):
        lstm = torch.nn.LSTM(D, 7, batch_first=True).double()
        lstm.weight_ih_l0.data = batched.from_input.weight[m].T.clone()
        lstm.weight_hh_l0.data = batched.from_hidden.weight[m].T.clone()
        lstm.bias_ih_l0.data = batched.from_input.bias[m, 0].clone()
        lstm.bias_hh_l0.data.zero_()
        torch.testing.assert_close(got[m], lstm(x[m])[1][0][0])


def test_released_attention_is_torchs_multihead_attention_with_residual_and_norm():
    batched, x = initialized(MultiHeadAttention(M, D)), random_frames()
    got, projections = batched(x, BatchedDropout(None)), (batched.query, batched.key, batched.value)
    for m in range(M):
        attention = torch.nn.MultiheadAttention(D, 4, batch_first=True).double()
        attention.in_proj_weight.data = torch.cat([layer.weight[m].T for layer in projections])
        attention.in_proj_bias.data = torch.cat([layer.bias[m, 0] for layer in projections])
        attention.out_proj.weight.data = batched.out.weight[m].T.clone()
        attention.out_proj.bias.data = batched.out.bias[m, 0].clone()
        flat = x[m].flatten(0, 1)
        expected = torch.nn.functional.layer_norm(flat + attention(flat, flat, flat)[0], (D,))
        torch.testing.assert_close(got[m].flatten(0, 1), expected)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_flow_to_every_parameter(name):
    head = initialized(build_head(name, M, D, C))
    loss = binary_cross_entropy(head(random_frames(), BatchedDropout(None)).logits, torch.randint(0, C, (M, B)))
    loss.sum().backward()
    for key, parameter in head.named_parameters():
        if ("bias" in key and "score" in key) or key in ("attention.key.bias",):
            continue  # a shift of all keys, or of all scores, does not change a softmax
        assert (parameter.grad.flatten(1).abs().sum(dim=1) > 0).all(), key


@pytest.mark.parametrize("name", HEADS)
def test_a_model_does_not_depend_on_the_others(name):
    x, labels = random_frames(), torch.randint(0, C, (M, B))
    batched = initialized(build_head(name, M, D, C))
    out = batched(x, BatchedDropout([torch.Generator().manual_seed(9), torch.Generator().manual_seed(10)]))
    binary_cross_entropy(out.logits, labels).sum().backward()
    for m in range(M):
        alone = initialized(build_head(name, 1, D, C), num_models=1, seed=m)
        out_alone = alone(x[m : m + 1], BatchedDropout([torch.Generator().manual_seed(9 + m)]))
        torch.testing.assert_close(out_alone.logits[0], out.logits[m])
        binary_cross_entropy(out_alone.logits, labels[m : m + 1]).sum().backward()
        for expected, parameter in zip(alone.parameters(), batched.parameters(), strict=True):
            torch.testing.assert_close(expected.grad[0], parameter.grad[m])


@pytest.mark.parametrize("name", ["cefl", "released"])
def test_intensity_sums_to_one_over_clips(name):
    out = initialized(build_head(name, M, D, C))(random_frames(), BatchedDropout(None))
    torch.testing.assert_close(out.intensity.sum(-1), torch.ones_like(out.intensity[..., 0]))


@pytest.mark.parametrize("name", ["cefl", "sal", "sal+lrl", "mean", "fan", "released"])
def test_the_order_of_frames_in_a_clip_does_not_matter(name):
    """Equations 1 to 3 are sums over the frames of a clip (the LSTM depends on their order)."""
    head, x = initialized(build_head(name, M, D, C)), random_frames()
    shuffled = x[:, :, :, torch.tensor([3, 0, 4, 1, 2])]
    torch.testing.assert_close(head(x, BatchedDropout(None)).logits, head(shuffled, BatchedDropout(None)).logits)


@pytest.mark.parametrize("name", ["cefl", "released"])
def test_permuted_clips_permute_the_intensity_only(name):
    """A kernel of one clip, a softmax and a maximum over clips: the order of clips changes the map, not the logits."""
    head, x = initialized(build_head(name, M, D, C)), random_frames()
    order = torch.tensor([2, 0, 3, 1])
    out, permuted = head(x, BatchedDropout(None)), head(x[:, :, order], BatchedDropout(None))
    torch.testing.assert_close(out.logits, permuted.logits)
    torch.testing.assert_close(out.intensity[..., order], permuted.intensity)


def test_the_lstm_depends_on_the_order_of_frames():
    head, x = initialized(build_head("lstm", M, D, C)), random_frames()
    assert not torch.allclose(head(x, BatchedDropout(None)).logits, head(x.flip(2), BatchedDropout(None)).logits)


def test_dropout_drops_with_probability_p_and_preserves_the_mean():
    dropped = BatchedDropout([torch.Generator().manual_seed(0)]).dropout(torch.ones(1, 200, 500), 0.4)
    assert float((dropped == 0).double().mean()) == pytest.approx(0.4, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(BatchedDropout(None).dropout(dropped, 0.4), dropped)


def test_linear_is_initialized_as_in_torch():
    """Uniform within 1 / sqrt(inputs), which determines the standard deviation of a large layer."""
    layer = BatchedLinear(1, 400, 300)
    init_weights(layer, [torch.Generator().manual_seed(0)])
    expected = torch.nn.Linear(400, 300)
    assert float(layer.weight.detach().abs().max()) <= 1 / 20
    assert float(layer.weight.detach().std()) == pytest.approx(float(expected.weight.detach().std()), rel=0.02)


def test_layer_norm_matches_torch():
    x = torch.randn(M, B, D)
    torch.testing.assert_close(BatchedLayerNorm(M, D)(x), torch.nn.functional.layer_norm(x, (D,)))


@pytest.mark.parametrize("name", ["sal", "sal+lrl", "mean", "lstm", "fan"])
def test_only_cefl_and_released_have_an_intensity_map(name):
    assert initialized(build_head(name, M, D, C))(random_frames(), BatchedDropout(None)).intensity is None


def test_one_map_for_all_classes_locates_the_same_clip_for_every_label():
    intensity = torch.tensor([[[0.2, 0.5, 0.3]], [[0.6, 0.1, 0.3]]])
    assert located_index(intensity, torch.tensor([0, 4])).tolist() == [1, 0]


def test_parameters_of_the_full_head_are_within_five_percent_of_table_8():
    """12.83 M in table 8, of which the encoder has 11.18 M."""
    encoder = 11_176_512
    for name in ("cefl", "released"):
        total = encoder + sum(p.numel() for p in build_head(name, 1, 512, 6).parameters())
        assert abs(total / 12.83e6 - 1) < 0.05, (name, total)
    assert isinstance(build_head("paper", 1, 512, 6), CEFLNetHead)
