"""Chunks of models that fit into memory, and the finished ones of an unfinished run on disk."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from ...cache.atomic import atomic_write, sha256_of, write_json
from ...cache.errors import CeflError
from ...cache.ownership import claim_work_folder, remove_work_folder
from .evaluate import BATCH_SIZE
from .train_config import TrainConfig


def bytes_per_model(num_parameters: int, dim: int, num_videos: int, config: TrainConfig) -> int:
    """Return an upper estimate of the memory that one more model takes, in bytes.

    Parameters, gradients, the two moments of Adam, and two copies while a result is written; a training step with its
    gradients; an evaluation; the sampled frames of an epoch.
    """
    frames = config.num_clips * config.frames_per_clip
    steps = frames * dim * 4 * (12 * config.batch_size + 4 * BATCH_SIZE)
    return 24 * num_parameters + steps + 64 * frames * num_videos


def chunk_sizes(num_models: int, model_bytes: int, memory: int) -> list[int]:
    """Return the numbers of models that train together, as even as possible, so that a chunk takes at most ``memory`` bytes.

    >>> chunk_sizes(10, 100, 450), chunk_sizes(3, 100, 1)
    ([4, 3, 3], [1, 1, 1])
    """
    count = math.ceil(num_models / max(1, memory // model_bytes))
    return [num_models // count + (i < num_models % count) for i in range(count)]


@dataclass(frozen=True)
class Tables:
    """What a chunk gives besides weights: predictions and history."""

    predictions: pd.DataFrame
    history: pd.DataFrame


def unfinished_folder(run: Path) -> Path:
    """Return the folder of the chunks of a run."""
    run = Path(os.path.realpath(run))
    return run.with_name(f".{run.name}.unfinished")


class FinishedChunks:
    """The finished chunks of an unfinished run, in a folder beside it.

    ``key`` is everything that decides the result: chunks of another key are removed. The split into chunks is kept, so that a
    resumed run has the bytes of an uninterrupted one; only if ``max_size`` is less than its chunks have, it begins again.
    The tables of finished parts of the tuning are there too.
    """

    def __init__(self, run: Path, key: dict[str, Any], sizes: list[int], max_size: int) -> None:
        self.folder = unfinished_folder(run)
        self.key = json.loads(json.dumps(key))
        stored = _read_json(self.folder / "key.json")
        if stored.get("key") == self.key and max(stored["sizes"]) <= max_size:
            self.sizes = stored["sizes"]
        else:
            self.sizes = sizes
            claim_work_folder(self.folder)
            self.remove()
            claim_work_folder(self.folder)
            write_json(self.folder / "key.json", {"key": self.key, "sizes": sizes})

    def weights(self) -> list[Path]:
        """Return the weights of all chunks, in order."""
        return [self.folder / f"{number}.safetensors" for number in range(len(self.sizes))]

    @contextmanager
    def note_what_is_kept(self) -> Iterator[None]:
        """Add to an interruption (Ctrl-C, a full disk, a loss that is NaN) a note that says how many models are kept."""
        try:
            yield
        except (KeyboardInterrupt, OSError, MemoryError, CeflError) as error:
            finished = sum(size for number, size in enumerate(self.sizes) if (self.folder / f"{number}.json").is_file())
            kept = (
                f"{finished} of {sum(self.sizes)} models are finished and kept" if finished else "No model was finished"
            )
            if tuned := len(list(self.folder.glob("tuning-*.json"))):
                kept += f"; of the tuning, {tuned} part{'s' * (tuned > 1)}"
            error.add_note(f"{kept}; run the same command to go on.")
            if not finished and not tuned:
                self.remove()
            raise

    def write(self, number: int, head: nn.Module, tables: Tables) -> None:
        """Write a finished chunk: its weights first, then the file that makes it one."""
        path = self.folder / f"{number}.safetensors"
        with atomic_write(path) as temporary:
            temporary.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}))
        columns = {name: _to_json(getattr(tables, name)) for name in ("predictions", "history")}
        with atomic_write(self.folder / f"{number}.json") as temporary:
            temporary.write_text(json.dumps({"sha256": sha256_of(path), **columns}))

    def read(self, number: int) -> Tables | None:
        """Return the tables of a finished chunk; None if it is not finished, or damaged."""
        content = _read_json(self.folder / f"{number}.json")
        weights = self.folder / f"{number}.safetensors"
        if not weights.is_file() or content.get("sha256") != sha256_of(weights):
            return None
        return Tables(_from_json(content["predictions"]), _from_json(content["history"]))

    def write_tuning(self, number: int, table: pd.DataFrame) -> None:
        """Write the table of a finished part of the tuning."""
        with atomic_write(self.folder / f"tuning-{number}.json") as temporary:
            temporary.write_text(json.dumps(_to_json(table)))

    def read_tuning(self, number: int) -> pd.DataFrame | None:
        """Return the table of a finished part of the tuning; None if it is not finished, or damaged."""
        content = _read_json(self.folder / f"tuning-{number}.json")
        return _from_json(content) if content else None

    def remove(self) -> None:
        """Remove the folder; files in it that are not of a chunk stay, and the folder with them."""
        pattern = re.compile(r"\d+\.(json|safetensors)|tuning-\d+\.json|key\.json")
        remove_work_folder(self.folder, lambda name: pattern.fullmatch(name) is not None)


def concatenate_weights(parts: Sequence[Path], out: Path) -> None:
    """Join the weights of batched heads along the first axis, the models, with one tensor of one part in memory at a time."""
    header: dict[str, Any] = {}
    with ExitStack() as stack, out.open("wb") as file:
        opened = [stack.enter_context(safe_open(part, "pt")) for part in parts]
        names, offset = sorted(opened[0].keys()), 0
        for name in names:
            slices = [part.get_slice(name) for part in opened]
            shape = [sum(s.get_shape()[0] for s in slices), *slices[0].get_shape()[1:]]
            end = offset + math.prod(shape) * opened[0].get_tensor(name).element_size()
            header[name] = {"dtype": slices[0].get_dtype(), "shape": shape, "data_offsets": [offset, end]}
            offset = end
        encoded = json.dumps(header, separators=(",", ":")).encode()
        encoded += b" " * (-len(encoded) % 8)
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names:
            for part in opened:
                file.write(part.get_tensor(name).numpy().tobytes())


def _to_json(frame: pd.DataFrame) -> dict[str, Any]:
    return {name: [str(frame[name].dtype), frame[name].tolist()] for name in frame.columns}


def _from_json(columns: dict[str, Any]) -> pd.DataFrame:
    """Return the table that ``_to_json`` got; every number is exactly as it was."""
    return pd.DataFrame({name: pd.Series(values, dtype=dtype) for name, (dtype, values) in columns.items()})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
