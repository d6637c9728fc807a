"""Which sandbox is meant by what a person typed."""

from collections.abc import Sequence

from agent.errors import KatanodeError
from agent.listing.row import Row, distinct
from agent.reasons import Reason

_NAMED = 20
"""Candidates that are listed; more are counted."""


def find(rows: Sequence[Row], word: str) -> Row:
    """The one sandbox whose id begins so, or whose pod has this name.

    Raises:
        KatanodeError: `SANDBOX_UNKNOWN`, with those that come into question.
    """
    found = [row for row in rows if row.sandbox.id == word] or [
        row for row in rows if (word and row.sandbox.id.startswith(word)) or row.pod == word
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise KatanodeError(
            Reason.SANDBOX_UNKNOWN, f"{word!r} may be any of {len(found)} sandboxes", evidence=_lines(found)
        )
    if not rows:
        raise KatanodeError(Reason.SANDBOX_UNKNOWN, f"there is no sandbox {word!r}: no Kata sandbox runs on this node")
    raise KatanodeError(
        Reason.SANDBOX_UNKNOWN, f"there is no sandbox {word!r} on this node", evidence=f"there are:\n{_lines(rows)}"
    )


def _lines(rows: Sequence[Row]) -> str:
    by = distinct([row.sandbox.id for row in rows], least=12)
    lines = [f"{row.sandbox.id[:by]}  {row.pod or '(pod not known)'}" for row in rows[:_NAMED]]
    return "\n".join([*lines, *([f"and {len(rows) - _NAMED} more"] if len(rows) > _NAMED else [])])
