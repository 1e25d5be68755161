"""Mutations of valid files into broken ones, decided by a seeded generator so that a failure can be reproduced."""

from __future__ import annotations

import random
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zero_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    length = rng.choice((1, 4, 64, 1024, len(content)))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def delete_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 3, 17, 1000)) :]


def repeat_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    piece = content[start : start + rng.choice((1, 7, 300))]
    return content[:start] + piece * rng.choice((2, 5)) + content[start + len(piece) :]


def overwrite_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    random_bytes = rng.randbytes(rng.choice((1, 4, 40, 400)))
    return content[:start] + random_bytes + content[start + len(random_bytes) :]


def delete_all(content: bytes, rng: random.Random) -> bytes:
    return b""


def insert_huge_number(content: bytes, rng: random.Random) -> bytes:
    """Replace four bytes with the largest signed or unsigned integer: a size, count or offset."""
    start = rng.randrange(max(1, len(content) - 4))
    number = rng.choice((b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"))
    return content[:start] + number + content[start + 4 :]


ANY_FILE: tuple[Mutation, ...] = (
    truncate,
    flip_bits,
    zero_bytes,
    delete_bytes,
    repeat_bytes,
    overwrite_bytes,
    delete_all,
    insert_huge_number,
)


def set_box_field(name: bytes, offset: int, value: bytes) -> Mutation:
    """Return a mutation that overwrites a field of an MP4 box; ``offset`` counts from the end of its name."""

    def mutation(content: bytes, rng: random.Random) -> bytes:
        position = content.find(name)
        if position < 0:
            return content
        start = position + len(name) + offset
        return content[:start] + value + content[start + len(value) :]

    return mutation


MP4: tuple[Mutation, ...] = (
    set_box_field(b"mdhd", 12, bytes(4)),  # no ticks per second: no frame rate
    set_box_field(b"mdhd", 12, b"\x7f\xff\xff\xff"),
    set_box_field(b"mp4v", 24, b"\xff\xff\xff\xff"),  # 65,535 x 65,535 pixels
    set_box_field(b"tkhd", 76, b"\xff\xff\x00\x00\xff\xff\x00\x00"),
    set_box_field(b"stts", 8, b"\x00\x00\x00\x00"),
    set_box_field(b"stsz", 8, b"\x7f\xff\xff\xff"),  # two billion frames
    set_box_field(b"stco", 8, b"\xff\xff\xff\xf0"),
    set_box_field(b"mvhd", 12, bytes(4)),
)


def mutate(content: bytes, rng: random.Random, additional: tuple[Mutation, ...] = ()) -> bytes:
    """Apply one to three mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(ANY_FILE + additional)(content, rng)
    return content
