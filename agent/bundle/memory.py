"""What katanode keeps on the node: its memory, the journal of a change under way, the settings, what it wrote."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from agent.bundle.masking import as_text, json_piece, text_piece, toml_piece
from agent.bundle.piece import Failure, Piece
from agent.bundle.reading import file_piece, head, listed
from agent.bundle.scene import Scene
from agent.cri.journal import Entry, FileChange, Journal
from agent.errors import KatanodeError
from agent.host import modules, sysctl
from agent.host.root import HostRoot
from agent.kata import pins, render
from agent.state import FOLDER, JOURNAL, STATE

_TEXTS = (f"{FOLDER}/wish", f"{FOLDER}/lock", modules.LOAD_FILE, sysctl.SYSCTL_FILE)


def settings(scene: Scene) -> Iterator[Piece | Failure]:
    """The settings file as it stands there, be it valid or not."""
    if not scene.settings_path.exists():
        yield Piece("settings.toml", f"# {scene.settings_path} does not exist: all settings have their defaults\n")
    else:
        yield file_piece(HostRoot(), str(scene.settings_path.absolute()), "settings.toml")
    if scene.settings_problem:
        yield Failure("settings", f"{scene.settings_problem}\nThe report and all else were made with the defaults.")


def memory(scene: Scene) -> Iterator[Piece | Failure]:
    """The files below /var/lib/katanode, and those that katanode wrote elsewhere for itself."""
    root = scene.root
    lines = [line for folder in (FOLDER, render.FOLDER, "/opt/katanode") for line in listed(root, folder)]
    yield text_piece("katanode/folders.txt", "\n".join(lines) + "\n")
    if root(STATE).exists():
        yield file_piece(root, STATE, "katanode/state.json", _json_or_text)
    if root(JOURNAL).exists():
        yield _journal(root)
    if root(pins.ADDED).exists():
        yield file_piece(root, pins.ADDED, "katanode/pins.toml")
    for path in _TEXTS:
        if root(path).exists():
            yield file_piece(root, path, f"katanode{path.removeprefix(FOLDER)}", _text)


def _text(name: str, data: bytes, note: str) -> Piece:
    return text_piece(name, as_text(data), note=note)


def _json_or_text(name: str, data: bytes, note: str) -> Piece:
    try:
        return json_piece(name, json.loads(data), note=note)
    except ValueError:
        return text_piece(name, as_text(data), note="; ".join(filter(None, (note, "damaged: no JSON"))))


def _journal(root: HostRoot) -> Piece | Failure:
    """The journal with its configuration files as masked text: in it they stand whole, in base64."""
    try:
        entry = Journal(root(JOURNAL)).read()
    except KatanodeError as error:
        return Failure("katanode/journal.json", f"{error.message}: {error.evidence}\n{_outline(root)}")
    if entry is None:
        return Failure("katanode/journal.json", "it was there a moment ago: a change has just come to its end")
    pieces = [(change, *_masked(change)) for change in entry.files]
    tree = {**_plain(entry), "files": [{"path": c.path, "before": old, "after": new} for c, old, new, _ in pieces]}
    piece = json_piece("katanode/journal.json", tree, note="a change is under way or was interrupted")
    learned = tuple(secret for *_, secrets in pieces for secret in secrets)
    return Piece(piece.name, piece.text, piece.masked, note=piece.note, secrets=(*piece.secrets, *learned))


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "daemon": asdict(entry.daemon),
        "phase": str(entry.phase),
        "restarted": entry.restarted,
        "attempts": entry.attempts,
        "cause": list(entry.cause),
        "handlers": [asdict(handler) for handler in entry.handlers],
        "gone": list(entry.gone),
        "containers": dict(entry.containers),
    }


def _masked(change: FileChange) -> tuple[object, object, tuple[str, ...]]:
    """A file before and after as lines, and the secrets in it."""
    shown: list[object] = []
    learned: tuple[str, ...] = ()
    for data in (change.before, change.after):
        if data is None:
            shown.append(None)
            continue
        try:
            piece = toml_piece(change.path, data)
        except ValueError as error:
            shown.append(str(error))
            continue
        shown.append(piece.text.split("\n"))
        learned += piece.secrets
    return shown[0], shown[1], learned


def _outline(root: HostRoot) -> str:
    """What can be said of a journal that cannot be read: not its text, which may hold credentials in base64."""
    try:
        data, more = head(root(JOURNAL))
    except OSError as error:
        return str(error.strerror or error)
    digest = f", sha256 {hashlib.sha256(data).hexdigest()}" if not more else ""
    return f"left out, since it may hold credentials in a form that cannot be masked: {len(data) + more} bytes{digest}"
