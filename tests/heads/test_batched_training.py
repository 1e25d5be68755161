"""Batched training equals training each fold alone; the oracle is a plain loop over one fold with torch's own parts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.heads.clip_sampling import sample_clips_train
from ceflpipe.stages.heads.feature_bank import FeatureBank
from ceflpipe.stages.heads.layers import BatchedDropout, init_weights
from ceflpipe.stages.heads.losses import loss_per_video
from ceflpipe.stages.heads.registry import HEADS, build_head
from ceflpipe.stages.heads.train import ModelSpec, _class_weights, get_lr, train
from ceflpipe.stages.heads.train_config import TrainConfig

DIM = 16


def train_config(head="cefl", **changes):
    values = {"num_clips": 3, "frames_per_clip": 2, "epochs": 3, "warmup_epochs": 2, "cosine_t_max": 10}
    values |= {"learning_rate": 1e-2, "weight_decay": 1e-3, "batch_size": 4, "precision": "fp32"}
    return TrainConfig(head=head, **{**values, **changes})


def random_bank(videos=23, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 130, videos)
    start = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    features = rng.normal(size=(int(lengths.sum()), DIM)).astype(np.float16)
    arrays = (features, start, lengths, rng.integers(0, classes, videos))
    return FeatureBank(*map(torch.from_numpy, arrays), classes)


def models(videos=23):
    """Three folds of different sizes, so that the last batches of some are smaller or empty."""
    indices = torch.arange(videos)
    return [ModelSpec(7, "1", indices[:9]), ModelSpec(7, "2", indices[3:]), ModelSpec(8, "1", indices[::2])]


def plain_loop(bank, model, config):
    """One fold, one video at a time, torch's Adam, no padding."""
    head = build_head(config.head, 1, DIM, bank.num_classes)
    init_weights(head, [model.generator("start")])
    adam = torch.optim.Adam(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    for epoch in range(config.epochs):
        adam.param_groups[0]["lr"] = get_lr(epoch, config)
        generator = model.generator(f"draws {epoch}")
        order = model.train[torch.randperm(len(model.train), generator=generator)]
        frames = sample_clips_train(bank.length[order], config.num_clips, config.frames_per_clip, generator)
        for i in range(0, len(order), config.batch_size):
            batch = order[i : i + config.batch_size]
            clips = [bank.features[int(bank.start[v]) + f].float() for v, f in zip(batch, frames[i:], strict=False)]
            logits = head(torch.stack(clips)[None], BatchedDropout(None)).logits
            loss = loss_per_video(head.loss, logits, bank.label[batch][None]).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return head


@pytest.mark.parametrize("name", [name for name in HEADS if name != "released"])
def test_batched_equals_a_plain_loop_over_each_fold(name):
    batched = train(random_bank(), models(), train_config(name))
    for m, model in enumerate(models()):
        alone = plain_loop(random_bank(), model, train_config(name))
        for (key, result), expected in zip(batched.named_parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(
                result[m], expected[0], rtol=2e-4, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}"
            )


@pytest.mark.parametrize("name", ["mean", "cefl"])
def test_models_with_their_own_rate_decay_and_epochs_equal_a_plain_loop_over_each(name):
    """Two of them have the same rate and decay; the statistics of a model end with its epochs."""
    own = [
        {"learning_rate": 3e-3, "weight_decay": 0.1, "epochs": 2},
        {"learning_rate": 2e-2, "weight_decay": 0.0, "epochs": 4},
        {"learning_rate": 3e-3, "weight_decay": 0.1, "epochs": 1},
    ]
    specs = [replace(model, **values) for model, values in zip(models(), own, strict=True)]
    trained = []
    batched = train(random_bank(), specs, train_config(name), lambda stats, head: trained.append(stats.is_trained))
    assert [sum(column) for column in zip(*trained, strict=True)] == [2, 4, 1]
    for m, (model, values) in enumerate(zip(models(), own, strict=True)):
        alone = plain_loop(random_bank(), model, train_config(name, **values))
        for result, expected in zip(batched.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(result[m], expected[0], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["released", "cefl"])
def test_a_fold_alone_equals_the_fold_in_a_batch_with_dropout(name):
    batched = train(random_bank(), models(), train_config(name))
    for m, model in enumerate(models()):
        alone = train(random_bank(), [model], train_config(name))
        for result, expected in zip(batched.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(result[m], expected[0], rtol=2e-4, atol=2e-5)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, second = (train(random_bank(), models(), train_config()) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(first.parameters())[0], next(first.parameters())[2])


def test_the_learning_rate_schedule_is_that_of_the_released_code():
    """Linear warm-up over 10 epochs, cosine with T_max 160 stepped per epoch: about 1.5e-5 after 120 epochs."""
    config = train_config(learning_rate=1e-4, warmup_epochs=10, cosine_t_max=160, epochs=120)
    assert get_lr(0, config) == pytest.approx(1e-5)
    for epoch in (10, 60, 119):
        assert get_lr(epoch, config) == pytest.approx(1e-4 * (1 + math.cos(math.pi * epoch / 160)) / 2)
    assert get_lr(119, config) == pytest.approx(1.5e-5, rel=0.05)


def test_class_weights_give_every_class_the_same_total_weight():
    bank = replace(random_bank(), label=torch.tensor([0] * 15 + [1] * 6 + [2] * 2))
    weights = _class_weights(bank, [ModelSpec(0, "1", torch.arange(23))])[0]
    counts = torch.tensor([15.0, 6.0, 2.0])
    torch.testing.assert_close(weights * counts, torch.full((3,), 23 / 3))


def test_a_loss_that_is_not_finite_names_its_fold():
    bank = random_bank()
    bank.features[int(bank.start[0])] = float("inf")
    with pytest.raises(CeflError, match="fold 1 seed 7: loss is NaN or infinite in epoch 1"):
        train(bank, [ModelSpec(7, "1", torch.arange(4))], train_config(num_clips=10, frames_per_clip=15))


def test_training_learns():
    bank = random_bank(videos=60)
    for v in range(60):
        bank.features[bank.start[v] : bank.start[v] + bank.length[v], int(bank.label[v])] += 2
    losses = []
    train(
        bank,
        [ModelSpec(0, "1", torch.arange(60))],
        train_config(epochs=12, warmup_epochs=0),
        lambda stats, head: losses.append(float(stats.loss[0])),
    )
    assert losses[-1] < 0.3 * losses[0]
