"""How are failed videos told in the terminal?"""

from __future__ import annotations

from collections.abc import Sequence

from ..console import show, show_table

MOST_SHOWN = 20


def show_failures(failed: Sequence[tuple[str, str, str]], videos: int) -> None:
    """Show (id, status, note) of each, up to MOST_SHOWN, under a line that counts them all."""
    if not failed:
        return
    shown = failed[:MOST_SHOWN]
    show_table(["video", "status", "what happened"], shown, title=f"{len(failed)} of {videos} videos failed")
    if len(shown) < len(failed):
        show(f"… and {len(failed) - len(shown)} more; all of them with --json")
