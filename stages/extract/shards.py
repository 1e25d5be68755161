"""Shards of a data set for job queues (Slurm arrays), and merging their caches."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ...cache.atomic import remove_stale_tmp
from ...cache.errors import CeflError
from ...cache.features import VideoStatus
from ...cache.hdf5 import VideoLocation, pack, read_index, read_settings
from ...cache.lock import writer_lock
from ..manifest.manifest import Manifest


def parse_shard(text: str) -> tuple[int, int]:
    """Read '3/16' as (3, 16), the third of sixteen; raises CeflError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise CeflError(f"--shard {text}: write i/N with i from 1 to N, such as 3/16")
    return number, count


def select_shard(manifest: Manifest, number: int, count: int) -> Manifest:
    """Return every ``count``-th video of the manifest, beginning with the ``number``-th (from 1)."""
    return replace(manifest, rows=manifest.entries[number - 1 :: count])


def shard_cache(cache: Path, number: int, count: int) -> Path:
    return cache.with_name(f"{cache.stem}.shard-{number}-of-{count}{cache.suffix}")


def merge_shards(manifest: Manifest, cache: Path) -> list[tuple[str, str, str]]:
    """Put the caches of all shards into one file, the same to the byte as one run over everything would have made.

    Returns (id, status, note) of every video of the manifest that is not ok. Raises CeflError when a shard is missing, the
    shards were made with different settings, or a video's bytes have changed since they were written.
    """
    shards = _shards(cache)
    settings = {read_settings(path) for path in shards}
    if len(settings) != 1:
        raise CeflError(
            f"{cache}: its {len(shards)} shards were made with different settings; extract them again alike"
        )
    locations: dict[str, tuple[VideoLocation, str, str]] = {}
    for path in shards:
        index = read_index(path)
        for row, name in enumerate(index.id):
            locations[name] = (VideoLocation(path, row), index.status[row], index.note[row])
    failed: list[tuple[str, str, str]] = []
    for entry in manifest.entries:
        _, status, note = locations.get(entry.id, (None, VideoStatus.MISSING, "in none of the shards"))
        if status != VideoStatus.OK:
            failed.append((entry.id, status, note))
    order = [row.id for row in manifest.entries if row.id in locations]
    with writer_lock(cache):
        remove_stale_tmp(cache)
        damaged = pack(cache, [locations[name][0] for name in order], settings.pop())
    if damaged:
        raise CeflError(
            f"{cache}: {len(damaged)} videos had changed on disk since they were written ({', '.join(damaged[:3])}); "
            "they were left out, run their shard again with --verify"
        )
    return failed


def _shards(cache: Path) -> list[Path]:
    pattern = re.compile(re.escape(cache.stem) + r"\.shard-(\d+)-of-(\d+)" + re.escape(cache.suffix))
    beside = sorted(cache.parent.iterdir()) if cache.parent.is_dir() else []
    found = {(int(m[2]), int(m[1])): path for path in beside if (m := pattern.fullmatch(path.name))}
    counts = sorted({count for count, _ in found})
    if not counts:
        raise CeflError(f"{cache}: no shards beside it; make them with ceflpipe extract --shard 1/2, then 2/2")
    if len(counts) > 1:
        raise CeflError(
            f"{cache}: shards of {' and of '.join(map(str, counts))} lie there; remove those of one division"
        )
    missing = [number for number in range(1, counts[0] + 1) if (counts[0], number) not in found]
    if missing:
        raise CeflError(
            f"{cache}: {len(missing)} of {counts[0]} shards are missing, the first is {missing[0]}; "
            f"make it with ceflpipe extract --shard {missing[0]}/{counts[0]}"
        )
    return [found[key] for key in sorted(found)]
