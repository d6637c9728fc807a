"""What a lab is asked to be: passed as JSON from `lab.py` through `keeper.py` to `init.py`."""

from __future__ import annotations

from typing import TypedDict


class Order(TypedDict):
    """One lab's settings.

    Attributes:
        work: an empty folder of the lab's own, for what is written inside; removed at the end.
        keep: folders that stay as they are at their usual paths, writable.
        tmpfs: whether `work` is to be covered by a tmpfs (where the disk cannot carry an overlay's upper
            side).
        hierarchies: filled in by the keeper: the cgroup mounts in which the lab has a group.
    """

    work: str
    keep: list[str]
    tmpfs: bool
    hierarchies: list[str]
