"""One file of a bundle, and its bounds."""

from dataclasses import dataclass, replace
from typing import Literal

PIECE_LIMIT = 2 << 20
"""Bytes that one file has at most: some ten thousand lines of a log."""

TOTAL_LIMIT = 20 << 20
"""Bytes that all files have at most, before they are compressed."""

_LEAST = 200
"""Bytes below which a cut file says too little to be kept."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One file.

    Attributes:
        name: its path in the bundle.
        text: its content, masked.
        masked: how many values or lines hold a mark.
        keep: which side stays when it is too long: a log's end, all else's start.
        note: what a person should know of it, in few words.
        secrets: what was masked here because of its name, and is to be found nowhere else either.
    """

    name: str
    text: str
    masked: int = 0
    keep: Literal["start", "end"] = "start"
    note: str = ""
    secrets: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.text.encode())


@dataclass(frozen=True, slots=True)
class Failure:
    """A part that could not be had.

    Attributes:
        name: the file that it would have been, or what the files have in common.
        why: in one line or a few.
    """

    name: str
    why: str


def cut(piece: Piece, limit: int) -> Piece:
    """The piece within `limit` bytes; what is cut off is said in it, and in its note."""
    data = piece.text.encode()
    if len(data) <= limit:
        return piece
    room = max(0, limit - 80)
    at_end = piece.keep == "end"
    kept = data[len(data) - room :] if at_end else data[:room]
    # At a line's end, where there is one near: half a line misleads.
    edge = kept.find(b"\n") + 1 if at_end else kept.rfind(b"\n") + 1
    if edge and (edge < room // 2 if at_end else edge > room // 2):
        kept = kept[edge:] if at_end else kept[:edge]
    text = kept.decode("utf-8", "ignore")
    gone = len(data) - len(text.encode())
    said = f"[cut: {'the first' if at_end else 'the last'} {gone} bytes are left out]"
    text = f"{said}\n{text}" if at_end else f"{text.removesuffix(chr(10))}\n{said}\n"
    note = f"cut: its {'first' if at_end else 'last'} {human(gone)} are left out"
    return replace(piece, text=text, note="; ".join(filter(None, (piece.note, note))))


def within(pieces: list[Piece], piece_limit: int, total: int) -> list[Piece | Failure]:
    """The pieces within the bounds, in their order: where they are reached, the later ones are cut or left out."""
    kept: list[Piece | Failure] = []
    for piece in pieces:
        short = cut(piece, min(piece_limit, total))
        if short is not piece and total < _LEAST:
            kept.append(Failure(piece.name, f"left out: the bundle is full ({human(piece.size)})"))
            continue
        kept.append(short)
        total -= short.size
    return kept


def human(size: float) -> str:
    """Bytes for people: 812 B, 12 kB, 3.4 MB, 270 GB."""
    for unit in ("B", "kB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} MB" if size < 999.95 else f"{size / 1000:.1f} GB"
