"""Actor identities: reproducible, varied, every parameter independent of every other, and no gender."""

import dataclasses
import re

import numpy as np
import pytest
from helpers.run_cli import ROOT

from ceflpipe.stages.demo.action_units import expression_units
from ceflpipe.stages.demo.actor import PARAMETER_RANGES, Actor, make_actor
from ceflpipe.stages.demo.render import Camera, render_frame

COLOR_PARAMETERS = {"skin_darkness", "skin_warmth", "hair_lightness", "hair_warmth", "eye_lightness", "cloth_hue"}
COUNT = 2000


@pytest.fixture(scope="module")
def actors() -> list[Actor]:
    return [make_actor(number) for number in range(1, COUNT + 1)]


def ranks(values: list[float]) -> np.ndarray:
    return np.argsort(np.argsort(values))


def rank_correlation(one: list[float], other: list[float]) -> float:
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def chi_square(one: list[float], other: list[float], bins: int = 4) -> float:
    """Return the statistic of independence of two parameters, each cut into bins of the same number of actors."""
    table = np.zeros((bins, bins))
    np.add.at(table, (ranks(one) * bins // COUNT, ranks(other) * bins // COUNT), 1)
    expected = COUNT / bins**2
    return float(((table - expected) ** 2 / expected).sum())


def test_an_actor_is_the_same_every_time_and_unlike_the_others():
    assert make_actor(7) == make_actor(7)
    cast = [make_actor(number) for number in range(1, 25)]
    assert len({dataclasses.replace(actor, number=0) for actor in cast}) == 24
    brightness = [float(actor.skin_color.sum()) for actor in cast]
    assert max(brightness) > 2.5 * min(brightness)


def test_parameters_fill_their_ranges_evenly(actors):
    for name, (low, high) in PARAMETER_RANGES.items():
        values = np.array([getattr(actor, name) for actor in actors])
        assert low <= values.min()
        assert values.max() <= high
        counts = np.histogram(values, bins=4, range=(low, high))[0]
        assert (np.abs(counts - COUNT / 4) < 5 * np.sqrt(COUNT * 3 / 16)).all(), name


def test_parameters_are_mutually_independent(actors):
    """Neither monotone (rank correlation, deviation 0.022 by chance) nor in any other way (chi square, 9 +- 4.2)."""
    columns = {name: [getattr(actor, name) for actor in actors] for name in PARAMETER_RANGES}
    names = list(columns)
    for index, one in enumerate(names):
        for other in names[:index]:
            assert abs(rank_correlation(columns[one], columns[other])) < 0.1, (one, other)
            assert chi_square(columns[one], columns[other]) < 45, (one, other)


def test_the_measures_of_independence_detect_a_coupling():
    rng = np.random.default_rng(0)
    one = rng.uniform(-1, 1, COUNT)
    assert rank_correlation(list(one), list(0.15 * one + rng.uniform(-1, 1, COUNT))) > 0.1
    assert chi_square(list(one), list(one**2)) > 1000


def test_colors_of_skin_and_hair_are_independent_of_shape(actors):
    skin, hair = ([float(getattr(actor, name).sum()) for actor in actors] for name in ("skin_color", "hair_color"))
    assert abs(rank_correlation(skin, hair)) < 0.1
    for name in set(PARAMETER_RANGES) - COLOR_PARAMETERS:
        values = [getattr(actor, name) for actor in actors]
        assert abs(rank_correlation(skin, values)) < 0.1, name
        assert abs(rank_correlation(hair, values)) < 0.1, name


def test_an_actor_has_numbers_only_and_no_gender():
    """No category that a person could be sorted into: one number, and parameters on continuous ranges."""
    actor = make_actor(3)
    assert {field.name for field in dataclasses.fields(Actor)} == {"number", *PARAMETER_RANGES}
    assert all(type(getattr(actor, name)) is float for name in PARAMETER_RANGES)
    words = re.compile(
        r"\b(gender|sex|female|male|feminine|masculine|woman|women|man|men|girl|boy|her|his|beard|make-?up|race|ethnic\w*)\b",
        re.IGNORECASE,
    )
    for path in sorted((ROOT / "stages/demo").glob("*.py")):
        assert not words.findall(path.read_text(encoding="utf-8").replace("_", " ")), path.name


@pytest.mark.parametrize("name", PARAMETER_RANGES)
def test_every_parameter_is_visible_and_colors_move_nothing(name):
    actor = dataclasses.replace(make_actor(9), hair_end_y=1.0, skin_darkness=0.3)
    low, high = PARAMETER_RANGES[name]
    one, other = (
        render_frame(dataclasses.replace(actor, **{name: value}), expression_units("fear", 0.5), Camera(noise_std=0))
        for value in (low, low + 0.6 * (high - low))  # a hue of 1 is a hue of 0 again
    )
    assert np.abs(one[0].astype(int) - other[0]).max() > 8
    if name in COLOR_PARAMETERS:
        np.testing.assert_array_equal(one[1], other[1])
