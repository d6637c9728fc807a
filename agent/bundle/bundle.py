"""A bundle: parts gathered, known secrets swept out of all of them, within its bounds."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from agent import __version__
from agent.bundle import gather
from agent.bundle.masking import Sweep, printable
from agent.bundle.parts import parts
from agent.bundle.piece import PIECE_LIMIT, TOTAL_LIMIT, Failure, Piece, human, within
from agent.bundle.scene import Scene
from agent.cri.credentials import without

INDEX = "INDEX.txt"
_AT_ONCE = 4
_SECONDS = 240.0
"""Bound for all of it; on a node that is well it takes about five."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes into an archive.

    Attributes:
        node: the node's name.
        at: when it was made, seconds since 1970.
        pieces: its files but the index.
        failures: what could not be had.
    """

    node: str
    at: float
    pieces: tuple[Piece, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def name(self) -> str:
        """The folder in the archive, and the archive's name without its end."""
        node = re.sub(r"[^A-Za-z0-9.-]+", "-", self.node).strip("-.") or "node"
        return f"katanode-bundle-{node}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(self.at))}"

    @property
    def size(self) -> int:
        """Bytes of all files but the index."""
        return sum(piece.size for piece in self.pieces)

    @property
    def masked(self) -> int:
        """How many values or lines hold a mark."""
        return sum(piece.masked for piece in self.pieces)

    @property
    def index(self) -> Piece:
        """The list of all files, which is one of them."""
        return Piece(INDEX, self.words())

    def files(self) -> list[Piece]:
        """All files, in the archive's order."""
        return [self.index, *self.pieces]

    def words(self) -> str:
        """What is in it, for people."""
        rows = [(INDEX, "", "", "this list"), *((p.name, human(p.size), _count(p), p.note) for p in self.pieces)]
        width = max(len(row[0]) for row in rows)
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.at))
        lines = [f"katanode {__version__}: bundle of {self.node}, {when}", "", f"{'SIZE':>7}  MASKED  FILE"]
        lines += [f"{size:>7}  {count:>6}  {name:<{width}}  {note}".rstrip() for name, size, count, note in rows]
        if self.failures:
            lines += ["", "could not be had:"]
            for failure in self.failures:
                first, *rest = failure.why.splitlines() or [""]
                lines += [f"  {failure.name}: {first}", *(f"    {line}" for line in rest)]
        masked = "1 value or line" if self.masked == 1 else f"{self.masked} values or lines"
        lines += ["", f"{len(rows)} files, {human(self.size)}; {masked} masked; {len(self.failures)} could not be had"]
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, object]:
        """What is in it, for machines."""
        return {
            "name": self.name,
            "node": self.node,
            "files": [
                {"name": p.name, "bytes": p.size, "masked": p.masked, "note": p.note}
                for p in (self.index, *self.pieces)
            ],
            "failures": [{"name": f.name, "why": f.why} for f in self.failures],
        }


def make(scene: Scene, node: str) -> Bundle:
    """Gathers a bundle; whatever is wrong with the node, there is one.

    Args:
        scene: where; the container runtime is looked for here.
        node: the node's name.
    """
    return assembled(node, time.time(), gather.gather(parts(scene), at_once=_AT_ONCE, seconds=_SECONDS))


def assembled(
    node: str,
    at: float,
    items: Sequence[Piece | Failure],
    *,
    piece_limit: int = PIECE_LIMIT,
    total_limit: int = TOTAL_LIMIT,
) -> Bundle:
    """What was gathered, as a bundle: without known secrets, printable, each name once, within its bounds."""
    pieces = [item for item in items if isinstance(item, Piece)]
    failures = [item for item in items if isinstance(item, Failure)]
    sweep = Sweep(secret for piece in pieces for secret in piece.secrets)
    if sweep.left_out:
        why = f"{sweep.left_out} of the secrets met were masked where they stand and looked for nowhere else: too many"
        failures.append(Failure("masking", why))
    taken = {INDEX}
    clean = []
    for piece in map(sweep, pieces):
        name = _free(piece.name, taken)
        note = printable(sweep.text(piece.note))
        clean.append(replace(piece, name=name, text=printable(piece.text), note=note, secrets=()))
    kept = within(clean, piece_limit, total_limit)
    failures += [item for item in kept if isinstance(item, Failure)]
    said = tuple(Failure(f.name, printable(sweep.text("\n".join(without(f.why.split("\n")))))) for f in failures)
    return Bundle(node, at, tuple(item for item in kept if isinstance(item, Piece)), said)


def _free(name: str, taken: set[str]) -> str:
    """A name that leads nowhere out of the archive's folder and that no other file has."""
    steps = [re.sub(r"[^\w.@:+=,~-]", "_", step) for step in PurePosixPath(name).parts if step not in {"/", ".."}]
    plain = unique = "/".join(steps) or "_"
    number = 1
    while unique in taken:
        number += 1
        unique = f"{plain}~{number}"
    taken.add(unique)
    return unique


def _count(piece: Piece) -> str:
    return str(piece.masked) if piece.masked else "-"
