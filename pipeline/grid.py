"""How do the points of a grid run: which are finished, how many at a time, and what if one fails?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..cache.errors import CeflError
from ..cache.files import remove_leftovers
from ..cache.store import read_table
from ..stages.heads.grid import Point, finished, run_point
from ..stages.heads.runfolder import Run, read_run
from .workers import Mapper, cores, processes

THREADS_PER_POINT = 1
"""Steps are short, and half of one is memory traffic: two points of one thread each finish sooner than one point of two
threads after the other (tests/bench/stage_two.py has the figures)."""


def run_grid(
    points: Sequence[Point],
    *,
    workers: int | None = None,
    mapper: Mapper | None = None,
    on_point: Callable[[str], None] = lambda name: None,
) -> list[Run]:
    """Run the points that are not finished yet and return all runs in the order of the points.

    One point at a time runs in this process; more (``workers``; default: one per core, one on a GPU) run in
    processes that share the cores among them, or where ``mapper`` runs them. ``on_point`` is called once per point, also
    for those that were finished.
    """
    identity = read_table(points[0].features).identity
    waiting = []
    for point in points:
        if finished(point, identity):
            on_point(f"{point.out.name} was there")
        else:
            waiting.append(point)
    on_gpu = points[0].device != "cpu"
    count = workers or (1 if on_gpu else max(1, cores() // THREADS_PER_POINT))
    if mapper is None and (count == 1 or len(waiting) <= 1):
        for point in waiting:
            run_point(point)
            on_point(point.out.name)
    else:
        # the longest first, so that no core waits at the end for one that began a long point late
        waiting.sort(key=lambda point: point.recipe.clips * point.recipe.frames, reverse=True)
        for outcome in (mapper or processes(count, threads=max(1, cores() // count)))(run_point, waiting):
            if isinstance(outcome, tuple):
                raise CeflError(f"{outcome[0].out}: {outcome[1]}; run the same command to go on")
            on_point(outcome.name)
    for point in points:  # a worker of a killed run lives half a second longer than its parent
        remove_leftovers(point.out)
    return [read_run(point.out) for point in points]
