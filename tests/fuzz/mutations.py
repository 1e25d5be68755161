"""Mutations of good files into broken ones, decided by a seeded generator so that a finding can be repeated."""

from __future__ import annotations

import random
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zeroed(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content) + 1)
    length = rng.choice((1, 4, 64, 1024, len(content)))
    return content[:begin] + bytes(len(content[begin : begin + length])) + content[begin + length :]


def cut(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content) + 1)
    return content[:begin] + content[begin + rng.choice((1, 3, 17, 1000)) :]


def doubled(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content) + 1)
    piece = content[begin : begin + rng.choice((1, 7, 300))]
    return content[:begin] + piece * rng.choice((2, 5)) + content[begin + len(piece) :]


def overwritten(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content) + 1)
    noise = rng.randbytes(rng.choice((1, 4, 40, 400)))
    return content[:begin] + noise + content[begin + len(noise) :]


def empty(content: bytes, rng: random.Random) -> bytes:
    return b""


def with_huge_numbers(content: bytes, rng: random.Random) -> bytes:
    """Four bytes at a random place become the largest signed or unsigned number: sizes, counts, offsets."""
    begin = rng.randrange(max(1, len(content) - 4))
    return (
        content[:begin]
        + rng.choice((b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"))
        + content[begin + 4 :]
    )


ANY: tuple[Mutation, ...] = (truncated, flipped, zeroed, cut, doubled, overwritten, empty, with_huge_numbers)


def box_field(name: bytes, offset: int, value: bytes) -> Mutation:
    """Overwrite a field of an MP4 box, wherever the box stands; ``offset`` counts from the end of its name."""

    def mutation(content: bytes, rng: random.Random) -> bytes:
        place = content.find(name)
        if place < 0:
            return content
        begin = place + len(name) + offset
        return content[:begin] + value + content[begin + len(value) :]

    return mutation


MP4: tuple[Mutation, ...] = (
    box_field(b"mdhd", 12, bytes(4)),  # no ticks per second: no frame rate
    box_field(b"mdhd", 12, b"\x7f\xff\xff\xff"),
    box_field(b"mp4v", 24, b"\xff\xff\xff\xff"),  # 65,535 x 65,535 pixels
    box_field(b"tkhd", 76, b"\xff\xff\x00\x00\xff\xff\x00\x00"),
    box_field(b"stts", 8, b"\x00\x00\x00\x00"),
    box_field(b"stsz", 8, b"\x7f\xff\xff\xff"),  # two thousand million frames
    box_field(b"stco", 8, b"\xff\xff\xff\xf0"),
    box_field(b"mvhd", 12, bytes(4)),
)


def mutate(content: bytes, rng: random.Random, more: tuple[Mutation, ...] = ()) -> bytes:
    """Apply one to three mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(ANY + more)(content, rng)
    return content
