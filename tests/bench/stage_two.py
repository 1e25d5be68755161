"""Benchmark stage two, in one process on one table: python tests/bench/stage_two.py [--dfew] [--device cuda]

Compares batched training (all folds as one computation) with the plain loop over folds with the same arithmetic, with a typical
research loop (a DataLoader that reads HDF5 per item, one fold after the other, fp32), and with the time of the matrix products
alone.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from helpers.fake_cache import fake_video
from helpers.runs import SETTINGS

from ceflpipe.cache.hdf5 import VideoLocation, pack, read_features, write_part
from ceflpipe.stages.device import autocast, resolve_device, resolve_precision
from ceflpipe.stages.encoder.weights import resnet18_backbone
from ceflpipe.stages.heads.ceflnet import CEFLNetHead
from ceflpipe.stages.heads.clip_sampling import sample_clips_train
from ceflpipe.stages.heads.feature_bank import FeatureBank, gather_frames
from ceflpipe.stages.heads.layers import BatchedDropout, init_weights
from ceflpipe.stages.heads.losses import loss_per_video
from ceflpipe.stages.heads.train import EpochStats, ModelSpec, train
from ceflpipe.stages.heads.train_config import TrainConfig

NUM_CLASSES, CLIPS, FRAMES, BATCH = 6, 7, 5, 8


def random_bank(videos: int, frames: int, device: torch.device) -> FeatureBank:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.random((videos * frames, 512), dtype=np.float32).astype(np.float16))
    lengths, labels = torch.full((videos,), frames), torch.from_numpy(rng.integers(0, NUM_CLASSES, videos))
    tensors = (features, torch.arange(videos) * frames, lengths, labels)
    return FeatureBank(*(tensor.to(device) for tensor in tensors), NUM_CLASSES)


def make_folds(videos: int, count: int) -> list[ModelSpec]:
    indices = torch.arange(videos)
    return [ModelSpec(1, str(f), indices[indices % count != f]) for f in range(count)]


def batched(bank: FeatureBank, models: list[ModelSpec], precision: str) -> float:
    """Return seconds per step of all folds: the median over three epochs after a warm-up epoch."""
    config = TrainConfig(
        epochs=4, warmup_epochs=0, num_clips=CLIPS, frames_per_clip=FRAMES, batch_size=BATCH, precision=precision
    )
    ends = [time.perf_counter()]

    def on_epoch_end(stats: EpochStats, head: nn.Module) -> None:
        synchronize(bank)
        ends.append(time.perf_counter())

    train(bank, models, config, on_epoch_end)
    return statistics.median(end - start for start, end in pairwise(ends[1:])) / num_steps(models)


def plain_loop(bank: FeatureBank, models: list[ModelSpec], precision: str, epochs: int = 2) -> float:
    """Return seconds per step of all folds if each fold is trained alone: the same table, head, samples and arithmetic."""
    device = bank.features.device
    total = 0.0
    for model in models:
        head = CEFLNetHead(1, 512, bank.num_classes)
        init_weights(head, [model.generator("start")])
        head.to(device)
        adam = torch.optim.Adam(head.parameters(), lr=1e-4, weight_decay=1e-4)
        for epoch in range(epochs):
            generator = model.generator(f"draws {epoch}")
            order = model.train[torch.randperm(len(model.train), generator=generator)]
            frames = sample_clips_train(bank.length.cpu()[order], CLIPS, FRAMES, generator).to(device)
            order = order.to(device)
            started = time.perf_counter()
            for i in range(0, len(order), BATCH):
                batch = order[None, i : i + BATCH]
                with autocast(device, precision):
                    output = head(gather_frames(bank, batch, frames[None, i : i + BATCH]), BatchedDropout(None))
                loss = loss_per_video("bce", output.logits, bank.label[batch]).mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
            synchronize(bank)
            if epoch:
                total += time.perf_counter() - started
    return total / ((epochs - 1) * num_steps(models))


class HDF5Items(torch.utils.data.Dataset):
    """Opens the file, reads one video and samples its clips, for every item."""

    def __init__(self, path: Path, videos: np.ndarray, frames: int, labels: np.ndarray) -> None:
        self.path, self.videos, self.frames, self.labels = path, videos, frames, labels

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int):
        v = int(self.videos[i])
        with h5py.File(self.path, "r") as file:
            video = torch.from_numpy(file["features"][v * self.frames : (v + 1) * self.frames].astype(np.float32))
        index = sample_clips_train(torch.tensor([len(video)]), CLIPS, FRAMES, torch.default_generator)[0]
        return video[index], int(self.labels[v])


class SingleHead(nn.Module):
    """The same equations in torch's own layers, for one fold."""

    def __init__(self, d: int = 512) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.gate, self.score, self.classify = nn.Linear(2 * d, 1), nn.Linear(d, NUM_CLASSES), nn.Linear(d, NUM_CLASSES)

    def forward(self, x):
        a = torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2) / 512**0.5, dim=-1) @ self.v(x)
        summary = a.mean(dim=2, keepdim=True).expand_as(a)
        w = torch.sigmoid(self.gate(torch.cat([summary, a], dim=-1)))
        r = self.out((w * a).sum(2) / w.sum(2))
        intensity = torch.softmax(self.score(r), dim=1)
        pooled = (intensity[..., None] * r[:, :, None]).amax(dim=1)
        return (pooled * self.classify.weight).sum(-1) + self.classify.bias


def dataloader_loop(bank: FeatureBank, models: list[ModelSpec], folder: Path, limit: int) -> float:
    """Return seconds per step of all folds: a DataLoader over HDF5 with two workers, fp32, one fold after the other.

    Only the first ``limit`` folds are trained.
    """
    frames = int(bank.length[0])
    path = folder / "plain.h5"
    with h5py.File(path, "w") as file:
        file["features"] = bank.features.numpy()
    total = counted = 0.0
    for model in models[:limit]:
        items = HDF5Items(path, model.train.numpy(), frames, bank.label.numpy())
        loader = torch.utils.data.DataLoader(items, BATCH, shuffle=True, num_workers=2)
        head = SingleHead()
        adam = torch.optim.Adam(head.parameters(), lr=1e-4, weight_decay=1e-4)
        started = time.perf_counter()
        for clips, labels in loader:
            loss = nn.functional.cross_entropy(head(clips), labels)
            adam.zero_grad()
            loss.backward()
            adam.step()
        total += time.perf_counter() - started
        counted += len(loader)
    return total / counted * len(models)


def products_alone(models: int, precision: str, device: torch.device) -> float:
    """Return seconds of the matrix products of one step of all models, in the order of the equations.

    These are the forward pass, and the backward pass to the weights and to inputs that are not features.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, clips, d = BATCH * CLIPS * FRAMES, BATCH * CLIPS, 512
    products = [((rows, d), (d, 3 * d)), ((d, rows), (rows, 3 * d))]  # Q, K, V and their weights' gradients
    products += [
        ((clips, d), (d, d)),
        ((d, clips), (clips, d)),
        ((clips, d), (d, d)),
    ]  # q^1, gradients of weight and input
    pairs = [
        (torch.rand(models, *a, device=device, dtype=kind), torch.rand(models, *b, device=device, dtype=kind))
        for a, b in products
    ]
    times = []
    for _ in range(12):
        started = time.perf_counter()
        for a, b in pairs:
            torch.bmm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def num_steps(models: list[ModelSpec]) -> int:
    return max(-(-len(model.train) // BATCH) for model in models)


def synchronize(bank: FeatureBank) -> None:
    if bank.features.device.type == "cuda":
        torch.cuda.synchronize()


def measure(
    name: str, videos: int, frames: int, count: int, device: torch.device, folder: Path, *, plain: bool
) -> None:
    bank, models = random_bank(videos, frames, device), make_folds(videos, count)
    print(
        f"\n{name}: {videos} videos x {frames} frames, {count} folds, batch {BATCH} each, {num_steps(models)} steps an epoch"
    )
    seconds = {}
    for precision in dict.fromkeys([resolve_precision("auto", device), "fp32"]):
        products = products_alone(count, precision, device)
        seconds[precision] = batched(bank, models, precision)
        line = f"  {precision}: batched {1e3 * seconds[precision]:7.1f} ms a step of all folds; products alone {1e3 * products:6.1f} ms: {seconds[precision] / products:4.2f} times"
        if plain:
            slow = plain_loop(bank, models, precision)
            line += f"; plain loop {1e3 * slow:7.1f} ms: {slow / seconds[precision]:4.2f} times batched"
        print(line, flush=True)
    if device.type == "cpu":
        slow = dataloader_loop(bank, models, folder, 3 if plain else 1)
        fast = seconds[resolve_precision("auto", device)]
        print(
            f"  DataLoader loop (HDF5 per item, fp32) {1e3 * slow:7.1f} ms: {slow / fast:5.2f} times batched",
            flush=True,
        )


def loading(folder: Path, videos: int = 11_697, frames: int = 77) -> None:
    features = np.random.default_rng(0).random((frames, 512), dtype=np.float32).astype(np.float16)
    locations = []
    for i in range(videos):
        part = folder / "parts" / f"{i}.h5"
        write_part(part, fake_video(f"{i:05d}", features), SETTINGS)
        locations.append(VideoLocation(part, 0))
    pack(folder / "dfew.h5", locations, SETTINGS)
    size = (folder / "dfew.h5").stat().st_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for attempt in ("first", "warm"):
        started = time.perf_counter()
        table = read_features(folder / "dfew.h5")
        print(
            f"  loading a DFEW-sized cache ({size / 2**30:.2f} GiB, {len(table.videos)} videos, checksums verified), {attempt}: {time.perf_counter() - started:.2f} s"
        )
        del table
    print(f"  peak memory grew by {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20:.2f} GiB")


def sweep_and_end_to_end(device: torch.device) -> None:
    """Estimate figure 8 (5 clip counts x 4 frame counts, 10 folds, 120 epochs of MMI) from the time of single steps."""
    encoder = resnet18_backbone().to(device).train()
    images = torch.rand(CLIPS * FRAMES, 3, 224, 224, device=device)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        encoder(images).sum().backward()
        times.append(time.perf_counter() - started)
    per_video = statistics.median(times[1:])
    bank, models = random_bank(205, 105, device), make_folds(205, 10)
    per_step = batched(bank, models, resolve_precision("auto", device))
    videos = sum(len(model.train) for model in models) * 120
    grid = [(n, k) for n in (1, 3, 5, 7, 9) for k in (2, 5, 10, 15)]
    cost = sum(n * k for n, k in grid) / (CLIPS * FRAMES)  # in runs with 7 clips of 5 frames; proportional to n k
    print(
        f"\nfigure 8 on MMI, {len(grid)} runs x 10 folds x 120 epochs, estimated from single steps, cost proportional to n x k:\n"
        f"  end to end: {per_video:.2f} s a video of 35 frames (encoder forward and backward, fp32) -> {per_video * videos * cost / 3600:,.0f} hours\n"
        f"  cached: {1e3 * per_step:.1f} ms a step of ten folds -> {per_step * num_steps(models) * 120 * cost / 3600:.2f} hours"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dfew", action="store_true", help="also measure a DFEW-sized table (takes minutes and 2 GB)")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}, {device}"
    )
    with tempfile.TemporaryDirectory() as folder:
        measure("MMI-sized", 205, 105, 10, device, Path(folder), plain=True)
        sweep_and_end_to_end(device)
        if arguments.dfew:
            measure("DFEW-sized", 11_697, 77, 5, device, Path(folder), plain=False)
            loading(Path(folder))


if __name__ == "__main__":
    main()
