"""A few rounds of kill -9 for every run of the tests; `make chaos ROUNDS=200` is the long version."""

import pytest
from chaos.rounds import KINDS, make_world, run_rounds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory, random_encoder, photographs):
    home = tmp_path_factory.mktemp("chaos")
    make_world(home, random_encoder, photographs["astronaut"])
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment_it_ends_the_same(world, kind):
    rounds = 2 if kind == "extract" else 1
    assert sum(run_rounds(world, rounds, seed=11, kinds=(kind,)).values()) == rounds
