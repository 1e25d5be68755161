"""Shards: which one a machine extracts."""

import pytest

from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.extract.shards import parse_shard


def test_parse_shard():
    assert parse_shard("3/16") == (3, 16)
    for text in ("0/4", "5/4", "1-4", "x", "-1/3", "1/0"):
        with pytest.raises(CeflError, match="write i/N"):
            parse_shard(text)
