"""The one error that a node raises."""

from __future__ import annotations

from hack.lab.errors import LabError


class NodeError(LabError):
    """Something that a node needs could not be had, or the node does not do what it was told."""
