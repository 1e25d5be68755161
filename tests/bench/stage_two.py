"""Speed of stage two, in one process on the same table: python tests/bench/stage_two.py [--dfew] [--device cuda]

Ours (all folds as one batched computation) against the plain loop over folds with the same arithmetic, against the loop a
researcher writes (a DataLoader that reads HDF5 per item, one fold after the other, fp32), and against the time of the
matrix products alone.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from ceflpipe.cache.features import VideoFeatures
from ceflpipe.cache.hdf5 import VideoLocation, pack, read_features, write_part
from ceflpipe.stages.device import autocast, resolve_device, resolve_precision
from ceflpipe.stages.heads.ceflnet import CEFLNetHead
from ceflpipe.stages.heads.clip_sampling import sample_clips_train
from ceflpipe.stages.heads.feature_bank import FeatureBank, gather_frames
from ceflpipe.stages.heads.layers import BatchedDropout, init_weights
from ceflpipe.stages.heads.losses import loss_per_video
from ceflpipe.stages.heads.train import ModelSpec, train
from ceflpipe.stages.heads.train_config import TrainConfig

CLASSES, CLIPS, FRAMES, BATCH = 6, 7, 5, 8


def table(videos: int, frames: int, seed: int = 0) -> FeatureBank:
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.random((videos * frames, 512), dtype=np.float32).astype(np.float16))
    lengths = torch.full((videos,), frames)
    return FeatureBank(
        features, torch.arange(videos) * frames, lengths, torch.from_numpy(rng.integers(0, CLASSES, videos)), CLASSES
    )


def folds(videos: int, count: int) -> list[ModelSpec]:
    everything = torch.arange(videos)
    return [ModelSpec(1, str(f), everything[everything % count != f]) for f in range(count)]


def recipe(precision: str, epochs: int = 1) -> TrainConfig:
    return TrainConfig(
        head="cefl",
        num_clips=CLIPS,
        frames_per_clip=FRAMES,
        epochs=epochs,
        warmup_epochs=0,
        learning_rate=0.0001,
        batch_size=BATCH,
        precision=precision,
    )


def ours(data: FeatureBank, models: list[ModelSpec], precision: str) -> float:
    """Seconds per step of all folds, over one epoch after a warm-up."""
    times: list[float] = []
    started = [time.perf_counter()]

    def look(epoch, head) -> None:
        synchronise(data)
        times.append(time.perf_counter() - started[0])
        started[0] = time.perf_counter()

    train(data, models, recipe(precision, 4), look)
    return statistics.median(times[1:]) / steps(models)


def plain_loop(data: FeatureBank, models: list[ModelSpec], precision: str, epochs: int = 2) -> float:
    """Seconds per step of all folds when each fold is trained on its own: the same table, head, draws and arithmetic."""
    device = data.features.device
    total = 0.0
    for model in models:
        head = CEFLNetHead(1, 512, data.num_classes)
        init_weights(head, [model.generator("start")])
        head.to(device)
        adam = torch.optim.Adam(head.parameters(), lr=1e-4, weight_decay=1e-4)
        for epoch in range(epochs):
            generator = model.generator(f"draws {epoch}")
            order = model.train[torch.randperm(len(model.train), generator=generator)]
            drawn = sample_clips_train(data.length.cpu()[order], CLIPS, FRAMES, generator).to(device)
            order = order.to(device)
            started = time.perf_counter()
            for i in range(0, len(order), BATCH):
                with autocast(device, precision):
                    output = head(
                        gather_frames(data, order[None, i : i + BATCH], drawn[None, i : i + BATCH]),
                        BatchedDropout(None),
                    )
                loss = loss_per_video("bce", output.logits, data.label[order[i : i + BATCH]][None]).mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
            synchronise(data)
            if epoch:
                total += time.perf_counter() - started
    return total / ((epochs - 1) * steps(models))


class HDF5Items(torch.utils.data.Dataset):
    """What a researcher writes: open the file, read one video, draw its clips, for every item."""

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


class ResearchersHead(nn.Module):
    """The same equations in torch's ordinary layers, for one fold."""

    def __init__(self, d: int = 512) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.gate, self.score, self.classify = nn.Linear(2 * d, 1), nn.Linear(d, CLASSES), nn.Linear(d, CLASSES)

    def forward(self, x):
        a = torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2) / 512**0.5, dim=-1) @ self.v(x)
        summary = a.mean(dim=2, keepdim=True).expand_as(a)
        w = torch.sigmoid(self.gate(torch.cat([summary, a], dim=-1)))
        r = self.out((w * a).sum(2) / w.sum(2))
        intensity = torch.softmax(self.score(r), dim=1)
        pooled = (intensity[..., None] * r[:, :, None]).amax(dim=1)
        return (pooled * self.classify.weight).sum(-1) + self.classify.bias


def researchers_loop(data: FeatureBank, models: list[ModelSpec], folder: Path, limit: int) -> float:
    """Seconds per step of all folds: a DataLoader over HDF5 with two workers, fp32, one fold after the other."""
    frames = int(data.length[0])
    path = folder / "plain.h5"
    with h5py.File(path, "w") as file:
        file["features"] = data.features.numpy()
    total = counted = 0.0
    for model in models[:limit]:
        items = HDF5Items(path, model.train.numpy(), frames, data.label.numpy())
        loader = torch.utils.data.DataLoader(items, BATCH, shuffle=True, num_workers=2)
        head = ResearchersHead()
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


def floor(models: int, precision: str, device: torch.device) -> float:
    """Seconds of the matrix products of one step alone: forward, and backward to the weights (and to the input where there
    is one before it), for all models, as the plain order of the equations has them."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, clips, d = BATCH * CLIPS * FRAMES, BATCH * CLIPS, 512
    products = [((rows, d), (d, 3 * d)), ((d, rows), (rows, 3 * d))]  # Q, K, V and their weights' gradients
    products += [((clips, d), (d, d)), ((d, clips), (clips, d)), ((clips, d), (d, d))]  # q1, its gradient, its input's
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


def steps(models: list[ModelSpec]) -> int:
    return max(-(-len(model.train) // BATCH) for model in models)


def synchronise(data: FeatureBank) -> None:
    if data.features.device.type == "cuda":
        torch.cuda.synchronize()


def measure(
    name: str, videos: int, frames: int, count: int, device: torch.device, folder: Path, *, plain: bool
) -> None:
    data, models = table(videos, frames), folds(videos, count)
    data = FeatureBank(
        data.features.to(device), data.start.to(device), data.length.to(device), data.label.to(device), data.num_classes
    )
    print(
        f"\n{name}: {videos} videos x {frames} frames, {count} folds, batch {BATCH} each, {steps(models)} steps an epoch"
    )
    for precision in dict.fromkeys([resolve_precision("auto", device), "fp32"]):
        low, fast = floor(count, precision, device), ours(data, models, precision)
        line = f"  {precision}: ours {1e3 * fast:7.1f} ms a step of all folds; products alone {1e3 * low:6.1f} ms: {fast / low:4.2f} times"
        if plain:
            slow = plain_loop(data, models, precision)
            line += f"; plain loop {1e3 * slow:7.1f} ms: {slow / fast:4.2f} times ours"
        print(line, flush=True)
        if precision == resolve_precision("auto", device):
            best = fast
    if device.type == "cpu":
        slow = researchers_loop(data, models, folder, 3 if plain else 1)
        print(
            f"  researcher's loop (DataLoader, HDF5 per item, fp32) {1e3 * slow:7.1f} ms: {slow / best:5.2f} times ours",
            flush=True,
        )


def loading(folder: Path, videos: int = 11_697, frames: int = 77) -> None:
    rng = np.random.default_rng(0)
    block = rng.random((frames, 512), dtype=np.float32).astype(np.float16)
    entries = []
    for i in range(videos):
        video = VideoFeatures(
            f"{i:05d}", block, np.ones(frames, np.uint8), np.ones(frames, np.float32), np.zeros((frames, 4), np.float32),
            np.zeros((frames, 5, 2), np.float32), 25.0, frames, 64, 64, "f" * 32, "0" * 64, "ok",
        )  # fmt: skip
        write_part(folder / "parts" / f"{i}.h5", video, "{}")
        entries.append(VideoLocation(folder / "parts" / f"{i}.h5", 0))
    pack(folder / "dfew.h5", entries, "{}")
    size = (folder / "dfew.h5").stat().st_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for attempt in ("first", "warm"):
        started = time.perf_counter()
        read = read_features(folder / "dfew.h5")
        print(
            f"  loading a DFEW-sized cache ({size / 2**30:.2f} GiB, {len(read.videos)} videos, checksums verified), {attempt}: {time.perf_counter() - started:.2f} s"
        )
        del read
    print(f"  peak memory grew by {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20:.2f} GiB")


def sweep_against_end_to_end(device: torch.device) -> None:
    """Figure 8 (5 clip counts x 4 frame counts, 10 folds, 120 epochs of MMI) in steps, multiplied out, not run."""
    from ceflpipe.stages.encoder.weights import resnet18_backbone

    encoder = resnet18_backbone().to(device).train()
    pictures = torch.rand(CLIPS * FRAMES, 3, 224, 224, device=device)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        encoder(pictures).sum().backward()
        times.append(time.perf_counter() - started)
    per_video = statistics.median(times[1:])
    data, models = table(205, 105), folds(205, 10)
    ours_per_step = ours(data, models, resolve_precision("auto", device))
    videos = sum(len(m.train) for m in models) * 120
    grid = [(n, k) for n in (1, 3, 5, 7, 9) for k in (2, 5, 10, 15)]
    share = sum(n * k for n, k in grid) / (CLIPS * FRAMES)
    print(f"\nfigure 8 on MMI, {len(grid)} points x 10 folds x 120 epochs, multiplied out from single steps:")
    print(
        f"  end to end: {per_video:.2f} s a video of 35 frames (encoder forward and backward, fp32) -> {per_video * videos * share / 3600:,.0f} hours"
    )
    print(
        f"  cached: {1e3 * ours_per_step:.1f} ms a step of ten folds -> {ours_per_step * steps(models) * 120 * share / 3600:.2f} hours (cost taken as proportional to n x k)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dfew", action="store_true", help="also the DFEW-sized table (takes minutes and 2 GB)")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}, {device}"
    )
    with tempfile.TemporaryDirectory() as folder:
        measure("MMI-sized", 205, 105, 10, device, Path(folder), plain=True)
        sweep_against_end_to_end(device)
        if arguments.dfew:
            measure("DFEW-sized", 11_697, 77, 5, device, Path(folder), plain=False)
            loading(Path(folder))


if __name__ == "__main__":
    main()
