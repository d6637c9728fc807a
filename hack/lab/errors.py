"""The one error that a lab raises: what failed, the evidence, and what to do about it."""

from __future__ import annotations

# Enough to show a daemon's last words, too little to flood a test report.
EVIDENCE_LIMIT = 2000


class LabError(Exception):
    """Something that the lab needs could not be had.

    Args:
        what: one sentence saying what failed.
        evidence: the command's or the daemon's own words; only the end is kept.
        remedy: what the developer can do about it.
    """

    def __init__(self, what: str, *, evidence: str = "", remedy: str = "") -> None:
        self.what = what
        self.evidence = evidence.strip()[-EVIDENCE_LIMIT:]
        self.remedy = remedy
        parts = [what]
        if self.evidence:
            parts.append(f"evidence: {self.evidence}")
        if remedy:
            parts.append(f"remedy: {remedy}")
        super().__init__("\n".join(parts))
