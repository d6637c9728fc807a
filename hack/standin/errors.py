"""The one way in which making a release fails."""

from __future__ import annotations


class StandinError(Exception):
    """A release cannot be made.

    Args:
        message: what is missing or went wrong.
        remedy: what its reader can do about it.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message} ({remedy})" if remedy else message)
        self.remedy = remedy
