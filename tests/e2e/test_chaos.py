"""A few rounds of kill -9 in every test run; `make chaos ROUNDS=200` runs more."""

import pytest
from chaos.rounds import KINDS, make_dataset, run_rounds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, random_encoder, photographs):
    home = tmp_path_factory.mktemp("chaos")
    make_dataset(home, random_encoder, photographs["astronaut"])
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_command_gives_the_same_result_when_run_again(dataset, kind):
    rounds = 2 if kind == "extract" else 1
    counts, failures = run_rounds(dataset, rounds, seed=11, kinds=(kind,))
    assert (sum(counts.values()), failures) == (rounds, [])
