"""Which step a bench is at, for those who watch."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console

Tell = Callable[[str], None]


@contextlib.contextmanager
def watched(*, quiet: bool) -> Iterator[Tell | None]:
    """A line on stderr that says the step under way; None where nobody watches.

    Args:
        quiet: whether nothing is to be drawn.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with Console(stderr=True).status("katanode bench") as status:
        yield status.update
