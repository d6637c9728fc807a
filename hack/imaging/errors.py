"""The one error of the image's making."""

from __future__ import annotations

EVIDENCE_LIMIT = 3000


class ImageError(Exception):
    """The image cannot be made.

    Args:
        what: one sentence saying what failed.
        evidence: a program's own words; only the end is kept.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, evidence: str = "", remedy: str = "") -> None:
        parts = [what, evidence.strip()[-EVIDENCE_LIMIT:], f"remedy: {remedy}" if remedy else ""]
        super().__init__("\n".join(filter(None, parts)))
