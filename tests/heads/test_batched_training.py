"""Training many folds at once is training each alone; the oracle is a plain loop over one fold with torch's own parts."""

import math

import numpy as np
import pytest
import torch

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.heads.clip_sampling import sample_clips_train
from ceflpipe.stages.heads.feature_bank import FeatureBank
from ceflpipe.stages.heads.layers import BatchedDropout
from ceflpipe.stages.heads.losses import loss_per_video
from ceflpipe.stages.heads.registry import HEADS, build_head
from ceflpipe.stages.heads.train import ModelSpec, get_lr, train
from ceflpipe.stages.heads.train_config import TrainConfig

WIDTH = 16


def recipe(head="cefl", epochs=3, **changes):
    base = {
        "head": head, "loss": "auto", "clips": 3, "frames": 2, "longer": "clip", "epochs": epochs, "warmup": 2, "cosine": 10,
        "learning_rate": 1e-2, "weight_decay": 1e-3, "batch": 4, "class_weights": False, "precision": "fp32",
    }  # fmt: skip
    return TrainConfig(**{**base, **changes})


def data(videos=23, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 130, videos)
    start = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    features = torch.from_numpy(rng.normal(size=(int(lengths.sum()), WIDTH)).astype(np.float16))
    return FeatureBank(
        features,
        torch.from_numpy(start),
        torch.from_numpy(lengths),
        torch.from_numpy(rng.integers(0, classes, videos)),
        classes,
    )


def models(videos=23):
    """Three folds of different sizes, so that last batches are smaller or missing for some."""
    everything = torch.arange(videos)
    return [ModelSpec(7, "1", everything[:9]), ModelSpec(7, "2", everything[3:]), ModelSpec(8, "1", everything[::2])]


def plain_loop(data, model, recipe):
    """One fold, one video at a time out of the table, torch's Adam, no padding: what a reader would write."""
    head = build_head(recipe.head, 1, WIDTH, data.classes)
    from ceflpipe.stages.heads.layers import init_weights

    init_weights(head, [model.generator("start")])
    adam = torch.optim.Adam(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    loss_name = head.loss if recipe.loss == "auto" else recipe.loss
    for epoch in range(recipe.epochs):
        adam.param_groups[0]["lr"] = get_lr(epoch, recipe)
        generator = model.generator(f"draws {epoch}")
        order = model.train[torch.randperm(len(model.train), generator=generator)]
        frames = sample_clips_train(data.length[order], recipe.clips, recipe.frames, generator, recipe.longer)
        for i in range(0, len(order), recipe.batch):
            clips = torch.stack(
                [
                    data.features[int(data.start[v]) + f].float()
                    for v, f in zip(order[i : i + recipe.batch], frames[i : i + recipe.batch], strict=True)
                ]
            )
            logits = head(clips[None], BatchedDropout(None)).logits
            loss = loss_per_video(loss_name, logits, data.label[order[i : i + recipe.batch]][None]).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return head


@pytest.mark.parametrize("name", [name for name in HEADS if name != "released"])
def test_together_equals_a_plain_loop_over_each_fold(name):
    together = train(data(), models(), recipe(name))
    for m, model in enumerate(models()):
        alone = plain_loop(data(), model, recipe(name))
        for (key, ours), theirs in zip(together.named_parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(
                ours[m], theirs[0], rtol=2e-4, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}"
            )


@pytest.mark.parametrize("name", ["released", "cefl"])
def test_a_fold_alone_equals_the_fold_among_others_with_dropout(name):
    together = train(data(), models(), recipe(name))
    for m, model in enumerate(models()):
        alone = train(data(), [model], recipe(name))
        for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours[m], theirs[0], rtol=2e-4, atol=2e-5)


def test_same_seed_same_bytes_and_another_seed_others():
    one, two = train(data(), models(), recipe()), train(data(), models(), recipe())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(one.parameters())[0], next(one.parameters())[2])


def test_the_schedule_is_that_of_the_released_code():
    """Linear warm-up over 10 epochs, cosine with T_max 160 stepped per epoch: after 120 epochs near 1.5e-5."""
    r = recipe(learning_rate=1e-4, warmup=10, cosine=160, epochs=120)
    assert get_lr(0, r) == pytest.approx(1e-5)
    for epoch in (10, 60, 119):
        assert get_lr(epoch, r) == pytest.approx(1e-4 * (1 + math.cos(math.pi * epoch / 160)) / 2)
    assert get_lr(119, r) == pytest.approx(1.5e-5, rel=0.05)


def test_class_weights_give_every_class_the_same_say():
    d = data()
    d = FeatureBank(d.features, d.start, d.length, torch.tensor([0] * 15 + [1] * 6 + [2] * 2), 3)
    from ceflpipe.stages.heads.train import _class_weights

    weights = _class_weights(d, [ModelSpec(0, "1", torch.arange(23))])[0]
    counts = torch.tensor([15.0, 6.0, 2.0])
    torch.testing.assert_close(weights * counts, torch.full((3,), 23 / 3))


def test_a_loss_that_is_no_number_names_its_fold():
    d = data()
    features = d.features.clone()
    features[int(d.start[0])] = float("inf")
    broken = FeatureBank(features, d.start, d.length, d.label, d.num_classes)
    with pytest.raises(CeflError, match="fold 1 seed 7"):
        train(broken, [ModelSpec(7, "1", torch.tensor([0, 1, 2, 3]))], recipe(clips=10, frames=15))


def test_training_learns():
    d = data(videos=60)
    features = d.features.clone()
    for v in range(60):
        features[d.start[v] : d.start[v] + d.length[v], int(d.label[v])] += 2
    losses = []
    easy = FeatureBank(features, d.start, d.length, d.label, 3)
    train(
        easy,
        [ModelSpec(0, "1", torch.arange(60))],
        recipe(epochs=12, warmup=0),
        lambda epoch, head: losses.append(float(epoch.loss[0])),
    )
    assert losses[-1] < 0.3 * losses[0]
