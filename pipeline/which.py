"""Which videos does a person mean by files, folders and patterns?"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from ..cache.errors import CeflError
from ..stages.manifest.walk import natural, videos_below


def videos_meant(arguments: Iterable[Path]) -> list[Path]:
    """Return the videos of the arguments, each once, in order: files as they are, folders searched, patterns expanded.

    A folder of images is one video; of any other folder all videos below it are meant. A file that is not there stays
    in the list, so that it is said. Raises CeflError for a folder without videos and a pattern that nothing matches."""
    meant: dict[Path, None] = {}
    for argument in arguments:
        if argument.is_dir():
            found = list(videos_below(argument))
            if not found:
                raise CeflError(f"{argument}: no video in this folder, nor below it")
        elif not argument.exists() and glob.has_magic(str(argument)):
            found = [Path(name) for name in sorted(glob.glob(str(argument), recursive=True), key=natural)]
            if not found:
                raise CeflError(f"{argument}: nothing matches this pattern")
        else:
            found = [argument]
        meant.update(dict.fromkeys(found))
    return list(meant)
