"""The edit of a schema 2 root file in place (containerd 1.x): one block of ours at the end, every other byte as it was.

Headers appended at a file's end are safe whatever comes before them: TOML lets a table be opened anywhere, and nothing
of the file is captured. What they cannot extend (inline tables, tables made by dotted keys) is found by parsing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.reasons import Reason

BEGIN = "# >>> katanode >>> generated up to the closing mark; `katanode uninstall` takes it out"
JOINED = " (and the line end before this)"
END = "# <<< katanode <<<"
RESTATED = "# In effect by default until now; a file that names a runtime has to name these too."
CRI_V2 = 'plugins."io.containerd.grpc.v1.cri"'
CRI_V3 = "plugins.'io.containerd.cri.v1.runtime'"
IMAGES_V3 = "plugins.'io.containerd.cri.v1.images'"


def edit(
    original: bytes, handlers: Sequence[Handler], kept: Mapping[str, Any] | None = None, *, version: int | None = None
) -> bytes:
    """The file with the handlers' tables in a block at its end; a block that stands there is replaced.

    Args:
        original: the file as it is.
        handlers: what the block declares.
        kept: what of others it has to restate, see `restated`.
        version: a `version` line for the block, where the file has no key at all and so no version.

    Raises:
        KatanodeError: `EDIT_IMPOSSIBLE` when the marks of an earlier block are damaged.
    """
    before, joined, after = _split(original) or (original, _is_open(original), b"")
    eol = line_end(before)
    head = [f"version = {version}"] if version is not None else []
    lines = [BEGIN + (JOINED if joined else ""), *head, *tables(handlers, 2), *restated(kept or {}, 2), END]
    return before + (eol if joined else b"") + b"".join(line.encode() + eol for line in lines) + after


def remove(edited: bytes) -> bytes:
    """The file without our block, byte for byte what it was, text that was added around the block included.

    Raises:
        KatanodeError: `EDIT_IMPOSSIBLE` when the marks are damaged.
    """
    parts = _split(edited)
    if parts is None:
        return edited
    before, joined, after = parts
    # Text that somebody added after the block needs the line end that was added before it.
    return before + (line_end(before) if joined and after else b"") + after


def inside(edited: bytes) -> bytes:
    """What our block holds at present; nothing when there is none.

    Raises:
        KatanodeError: `EDIT_IMPOSSIBLE` when the marks are damaged.
    """
    parts = _split(edited)
    if parts is None:
        return b""
    before, _, after = parts
    return edited[len(before) : len(edited) - len(after)]


def _split(edited: bytes) -> tuple[bytes, bool, bytes] | None:
    """What stands before our block, if that has no line end of its own, and what stands after; None without one."""
    lines = _lines(edited)
    begins = [i for i, line in enumerate(lines) if line.startswith(BEGIN.encode())]
    ends = [i for i, line in enumerate(lines) if line.rstrip(b"\r\n") == END.encode()]
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        where = ", ".join(str(i + 1) for i in sorted((*begins, *ends)))
        raise KatanodeError(
            Reason.EDIT_IMPOSSIBLE,
            "katanode's marks in the file are damaged",
            evidence=f"marks in lines {where}; one pair was expected",
            remedy=f"Take out the lines from '{BEGIN[:16]}…' to '{END}' by hand, then run katanode again.",
        )
    begin, end = begins[0], ends[0]
    before, after = b"".join(lines[:begin]), b"".join(lines[end + 1 :])
    joined = lines[begin].rstrip(b"\r\n").endswith(JOINED.encode())
    return _without_end(before) if joined else before, joined, after


def _without_end(text: bytes) -> bytes:
    r"""The text less the line end that `edit` added: \r\n only where the lines before it end so."""
    bare = text.removesuffix(b"\n")
    return bare[:-1] if bare.endswith(b"\r") and line_end(bare[:-1]) == b"\r\n" else bare


def _is_open(text: bytes) -> bool:
    return bool(text) and not text.endswith(b"\n")


def line_end(text: bytes) -> bytes:
    """How the file ends its lines: as its last one does, so that new lines follow their neighbours."""
    last = text.rfind(b"\n")
    return b"\r\n" if last > 0 and text[last - 1 : last] == b"\r" else b"\n"


def restated(kept: Mapping[str, Any], schema: int) -> list[str]:
    """What was in effect only by containerd's defaults, as lines of TOML; nothing when nothing has to be restated.

    A file that names any runtime replaces the default ones whole (measured on every generation): without these lines
    adding a handler to a file without runtimes would take `runc` away. And containerd 2.0 to 2.2 honour a schema 2
    file's snapshotter only once a runtime is named (measured on 2.0.0, 2.1.9, 2.2.7).

    Args:
        kept: the part of the CRI plugin's `containerd` table to restate: its scalars, and `runtimes`.
        schema: whose names the tables get.
    """
    if not kept:
        return []
    import tomlkit  # noqa: PLC0415 - rarely needed, and a twentieth of a second to import

    lines = [RESTATED]

    def table(header: str, values: Mapping[str, Any], indent: str) -> None:
        scalars = {key: value for key, value in values.items() if not isinstance(value, dict)}
        if scalars or not values:
            lines.append(f"{indent}[{header}]")
        lines.extend(f"{indent}  {key} = {tomlkit.item(value).as_string()}" for key, value in scalars.items())
        for key, value in values.items():
            if isinstance(value, dict):
                table(f"{header}.{tomlkit.key(key).as_string()}", value, indent + "  ")

    table(f"{CRI_V2 if schema == 2 else CRI_V3}.containerd", kept, "")
    return lines


def tables(handlers: Sequence[Handler], schema: int) -> list[str]:
    """The handlers' tables as lines of TOML in the names of a schema."""
    plugin = CRI_V2 if schema == 2 else CRI_V3
    lines: list[str] = []
    for handler in handlers:
        table = f"{plugin}.containerd.runtimes.{handler.name}"
        lines += [f"[{table}]", f"  runtime_type = {_text(handler.runtime_type)}"]
        if handler.runtime_path:
            lines.append(f"  runtime_path = {_text(handler.runtime_path)}")
        lines.append(f"  pod_annotations = [{', '.join(map(_text, handler.pod_annotations))}]")
        privileged = str(handler.privileged_without_host_devices).lower()
        lines.append(f"  privileged_without_host_devices = {privileged}")
        if handler.snapshotter:
            lines.append(f"  snapshotter = {_text(handler.snapshotter)}")
        lines += [f"  [{table}.options]", f"    ConfigPath = {_text(handler.config_path)}"]
        if handler.snapshotter and schema > 2:
            lines += [
                f"[{IMAGES_V3}.runtime_platforms.{handler.name}]",
                f"  snapshotter = {_text(handler.snapshotter)}",
            ]
    return lines


def _text(value: str) -> str:
    """A TOML basic string; names and paths of ours hold nothing but printable ASCII."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _lines(data: bytes) -> list[bytes]:
    r"""Lines that end with \n only: a lone \r is no line end in TOML."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
