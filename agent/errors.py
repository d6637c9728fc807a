"""What katanode raises: one error, always with its reason, the evidence and the remedy."""

from agent.reasons import CATALOGUE, Reason

EVIDENCE_LIMIT = 4000
"""Characters of foreign text (a command's stderr, a daemon's answer) that an error carries at most."""


def bounded(text: str, limit: int = EVIDENCE_LIMIT) -> str:
    """Foreign text made fit to show: stripped, control characters escaped, the middle cut out beyond `limit`."""
    clean = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text.strip())
    if len(clean) <= limit:
        return clean
    half = limit // 2
    return f"{clean[:half]}\n[… {len(clean) - limit} characters left out …]\n{clean[-half:]}"


class KatanodeError(Exception):
    """Something that a person can meet and mend.

    Args:
        reason: its code in the catalogue.
        message: what failed, one sentence, with the names and paths at hand.
        evidence: what was seen (a command and its last words, a line, numbers); bounded here.
        remedy: what to do; the catalogue's own when not given.
    """

    def __init__(self, reason: Reason, message: str, *, evidence: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.evidence = bounded(evidence)
        self.remedy = remedy or CATALOGUE[reason].remedy

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"
