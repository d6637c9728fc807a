"""From the wish for handlers to a checked change of containerd's configuration; nothing here changes the node."""

import contextlib
import dataclasses
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from agent.cri import block, effective, imports, recognise
from agent.cri.activation import Change
from agent.cri.daemon import Daemon
from agent.cri.dump import printed, staged
from agent.cri.handler import Handler
from agent.cri.journal import FileChange
from agent.cri.masking import masked
from agent.errors import KatanodeError
from agent.host import files
from agent.host.process import Runner
from agent.host.root import HostRoot
from agent.reasons import Reason


class Configuration:
    """The configuration of the daemon that serves this node.

    Args:
        root: the host's root.
        runner: runs the daemon's program.
        daemon: whose configuration it is.
    """

    def __init__(self, root: HostRoot, runner: Runner, daemon: Daemon) -> None:
        self._root = root
        self._runner = runner
        self._daemon = daemon
        self._path = daemon.config_path

    def wish(self, handlers: Sequence[Handler]) -> Change:
        """The change that brings the handlers and takes our earlier ones; without files where all is configured.

        Args:
            handlers: what shall be configured; none for an uninstall.

        Raises:
            KatanodeError: whatever `recognise.read` raises, `CONFIG_MISSING`, `CONFIG_UNREADABLE`, `CONFIG_GENERATED`,
                `EDIT_IMPOSSIBLE`, `HANDLER_FOREIGN`.
        """
        return self._wish(handlers, {})

    def checked(self, change: Change) -> Change:
        """Has the daemon's own program read the configuration as it will be, beside the live one.

        Returns:
            The change, which restates runtimes that were in effect by default and would go.

        Raises:
            KatanodeError: `CONFIG_REFUSED` (as it is, already), `EDIT_IMPOSSIBLE`, `EDIT_WITHOUT_EFFECT`,
                `EDIT_DISTURBS_OTHERS`, `HANDLER_FOREIGN`.
        """
        self._refuse_dangling()
        before = self._before()
        self._refuse_foreign_imports(before, change)
        after = self._printed(change)
        if change.handlers:
            kept = effective.to_restate(before, after, [*(h.name for h in change.handlers), *change.gone])
            if self._daemon.merges_dropins:
                # 2.x merges the defaults with whatever names a runtime (measured on 2.0.0, 2.1.9, 2.2.7, 2.3.4): one
                # that would go is somebody's own, and to restate it would hide that the change loses it.
                kept.pop("runtimes", None)
            if kept:
                change = self._wish(change.handlers, kept)
                after = self._printed(change)
        self._judge(before, after, change)
        return change

    def _wish(self, handlers: Sequence[Handler], kept: Mapping[str, Any]) -> Change:
        document = self._read()
        make = self._dropin if self._daemon.merges_dropins else self._block
        changes = tuple(make(document, handlers, kept))
        gone = {name for change in changes for name in _declared(change)} - {handler.name for handler in handlers}
        return Change(tuple(c for c in changes if c.before != c.after), tuple(handlers), tuple(sorted(gone)))

    def _printed(self, change: Change) -> dict[str, Any]:
        try:
            with self._candidate(change) as path:
                return printed(self._runner, self._daemon, path)
        except KatanodeError as error:
            if error.reason is not Reason.CONFIG_REFUSED:
                raise
            raise KatanodeError(
                Reason.EDIT_IMPOSSIBLE, "containerd refuses the changed configuration", evidence=error.evidence
            ) from error

    def _refuse_dangling(self) -> None:
        """Refuses a root file that names a missing file: 2.x's dump exits 0 then, and the daemon does not start."""
        data = self._without_ours(files.read_bounded(self._root(self._path)))
        missing = [path for path in self._imported(data) if not self._root(path).exists()]
        if missing:
            raise KatanodeError(
                Reason.CONFIG_REFUSED,
                f"{self._path} imports a file that does not exist",
                evidence="\n".join(missing),
                remedy="Restore the file or take it out of imports: containerd does not start again without it.",
            )

    def _refuse_foreign_imports(self, before: Mapping[str, Any], change: Change) -> None:
        """Refuses a name that a table of somebody else's drop-in has."""
        declared = {name for file in change.files for name in _declared(file)}
        root_file = files.read_bounded(self._root(self._path))
        ours = [data for _, data in self._standing(root_file)] if self._daemon.merges_dropins else [root_file]
        declared |= {name for data in ours for name in _handlers(data)}
        for handler in change.handlers:
            if handler.name in effective.runtimes(before) and handler.name not in declared:
                raise KatanodeError(
                    Reason.HANDLER_FOREIGN,
                    f"a file that {self._path} imports already has a handler {handler.name}",
                    evidence=f"imports: {', '.join(self._imported(self._without_ours(root_file)))}",
                )

    def _judge(self, before: Mapping[str, Any], after: Mapping[str, Any], change: Change) -> None:
        missing = effective.without_effect(after, change.handlers, change.gone)
        if missing:
            raise KatanodeError(
                Reason.EDIT_WITHOUT_EFFECT,
                "containerd would not take the handlers from the changed configuration",
                evidence="\n".join(missing),
            )
        names = [*(handler.name for handler in change.handlers), *change.gone]
        others = effective.others_changed(before, after, names)
        if others:
            raise KatanodeError(
                Reason.EDIT_DISTURBS_OTHERS,
                f"the change would alter {len(others)} other settings of containerd",
                evidence="\n".join(others[:20]),
            )

    def current(self) -> dict[str, Any]:
        """The live file as the daemon's program reads it.

        Raises:
            KatanodeError: `CONFIG_REFUSED`.
        """
        return printed(self._runner, self._daemon, self._path)

    def _read(self) -> recognise.Document:
        try:
            data = files.read_bounded(self._root(self._path))
        except FileNotFoundError:
            raise KatanodeError(
                Reason.CONFIG_MISSING,
                f"{self._path} does not exist",
                evidence=f"process {self._daemon.pid} serves {self._daemon.socket} and names this file or none",
            ) from None
        except KatanodeError as error:
            raise KatanodeError(Reason.CONFIG_UNREADABLE, error.message, evidence=error.evidence) from error
        try:
            return recognise.read(data, self._path)
        except KatanodeError as error:
            if error.reason is not Reason.CONFIG_INVALID or self._without_ours(data) == data:
                raise
            # Somebody configured by themselves what our block restates: it is our block that has to give way.
            plain = recognise.read(self._without_ours(data), self._path)
            return dataclasses.replace(plain, data=data)

    def _without_ours(self, data: bytes) -> bytes:
        return data if self._daemon.merges_dropins else block.remove(data)

    def _before(self) -> dict[str, Any]:
        """What is in effect at present; without our block where that is why containerd would not start again."""
        try:
            return self.current()
        except KatanodeError:
            data = files.read_bounded(self._root(self._path))
            plain = self._without_ours(data)
            if plain == data:
                raise
            with staged(self._root, self._path, "candidate-plain", plain) as path:
                return printed(self._runner, self._daemon, path)

    def _block(
        self, document: recognise.Document, handlers: Sequence[Handler], kept: Mapping[str, Any]
    ) -> list[FileChange]:
        """In place: a drop-in would replace the root's whole CRI table on 1.x and take the node down (measured)."""
        plain = block.remove(document.data)
        said = recognise.read(plain, self._path) if plain.strip() else document
        if handlers and said.tree and said.version is None:
            raise KatanodeError(
                Reason.CONFIG_SCHEMA_OLD,
                f"{self._path} has no version line, so containerd {self._daemon.version} reads it as schema 1",
                evidence="there is no `version = 2` before the first table",
            )
        if handlers and said.version is not None and said.version > 2:
            raise KatanodeError(
                Reason.CONFIG_SCHEMA_UNKNOWN,
                f"{self._path} has schema {said.version}, which containerd {self._daemon.version} does not honour",
                remedy="Write the configuration in schema 2, or upgrade containerd to 2.x.",
            )
        if not handlers:
            return [FileChange(self._path, document.data, plain)]
        self._refuse_foreign(said.tree, handlers)
        kept = _merged(_kept(block.inside(document.data)), kept)
        kept = _less(kept, effective.containerd_table({"plugins": _v2(said.tree)}))
        after = block.edit(document.data, handlers, kept, version=None if said.tree else 2)
        if after != document.data and said.generator:
            raise self._generated(said.generator)
        self._see_that_only_ours_came(said.tree, after, [*(h.name for h in handlers), *kept.get("runtimes", {})])
        return [FileChange(self._path, document.data, after)]

    def _dropin(
        self, document: recognise.Document, handlers: Sequence[Handler], kept: Mapping[str, Any]
    ) -> list[FileChange]:
        plain = imports.remove(document.data, self._path)
        if not handlers:
            ours = self._standing(document.data)
            return [FileChange(self._path, document.data, plain), *(FileChange(p, data, None) for p, data in ours)]
        version = document.version
        if version is None:
            # Without a version line the file counts as the daemon's newest schema, which its dump prints (measured).
            version = self._newest_schema()
        self._refuse_foreign(document.tree, handlers)
        standing = [path for path, _ in self._standing(document.data)]
        placement = imports.place(document.data, self._path, standing)
        if placement.root != document.data and document.generator:
            raise self._generated(document.generator)
        before = files.read_if_there(self._root(placement.path))
        kept = _merged(_kept(before or b""), kept)
        return [
            FileChange(placement.path, before, imports.content(handlers, kept, version)),
            *(FileChange(path, data, None) for path, data in self._standing(document.data) if path != placement.path),
            FileChange(self._path, document.data, placement.root),
        ]

    def _standing(self, root_file: bytes) -> Iterator[tuple[str, bytes]]:
        """Our drop-ins wherever the root file's imports find them or did so once: known by name and first line.

        A package's new root file may import another folder than the one before: what is in that one is ours all the
        same, and would be loaded again by the next file that imports it.
        """
        folder = PurePosixPath(self._path).parent
        beside = sorted(self._root(str(folder)).glob(f"*/{imports.NAME}.toml"))
        once = [str(folder / path.parent.name / path.name) for path in beside]
        for path in dict.fromkeys((*imports.places(root_file, self._path), imports.own_path(self._path), *once)):
            data = files.read_if_there(self._root(path))
            if data is not None and data.startswith(imports.BANNER.encode()):
                yield path, data

    def _newest_schema(self) -> int:
        version = self.current().get("version")
        if version not in recognise.SCHEMAS:
            raise KatanodeError(
                Reason.CONFIG_SCHEMA_UNKNOWN, f"containerd {self._daemon.version} prints schema {version!r}"
            )
        return int(version)

    def _refuse_foreign(self, tree: Mapping[str, Any], handlers: Sequence[Handler]) -> None:
        """Refuses a name that somebody else's table in the root file has."""
        # 2.x honours both families of ids in one file (measured on 2.1.9), 1.x the older alone.
        there = set(effective.runtimes({"plugins": _v2(tree)}))
        if self._daemon.merges_dropins:
            there |= set(effective.runtimes(tree))
        for handler in handlers:
            if handler.name in there:
                raise KatanodeError(
                    Reason.HANDLER_FOREIGN,
                    f"{self._path} already has a handler {handler.name}",
                    evidence=_line_of(self._root(self._path).read_bytes(), handler.name),
                )

    def _see_that_only_ours_came(self, before: Mapping[str, Any], after: bytes, names: Sequence[str]) -> None:
        """Parsed, the file is as before plus our tables: otherwise a header met an inline table or a dotted key."""
        try:
            others = effective.others_changed(before, recognise.read(after, self._path).tree, names)
        except KatanodeError as error:
            others = [error.evidence]
        if before and others:
            raise KatanodeError(
                Reason.EDIT_IMPOSSIBLE,
                f"no table can be added to {self._path}: an inline table or dotted keys stand where it belongs",
                evidence="\n".join(others[:20]),
            )

    @contextlib.contextmanager
    def _candidate(self, change: Change) -> Iterator[str]:
        """The root file as it will be, beside the live one, with the drop-in staged where no live glob finds it."""
        dropins = {file.path: file for file in change.files}
        live = dropins.pop(self._path, None)
        data = live.after if live else files.read_bounded(self._root(self._path))
        assert data is not None  # the root file is never removed
        with contextlib.ExitStack() as stack:
            if dropins:
                paths = [path for path in self._imported(data) if path not in dropins]
                for number, file in enumerate(f for f in dropins.values() if f.after is not None):
                    name = f"candidate-drop-in-{number}"
                    paths.append(stack.enter_context(staged(self._root, self._path, name, file.after or b"")))
                data = imports.replaced(data, paths)
            yield stack.enter_context(staged(self._root, self._path, "candidate-root", data))

    def _imported(self, data: bytes) -> Iterator[str]:
        """The files that a root file imports, in containerd's order: globs in Go's, which is sorted."""
        folder = PurePosixPath(self._path).parent
        for pattern in imports.imports_of(data):
            path = folder / pattern
            if "*" not in pattern:
                yield str(path)
                continue
            plain = PurePosixPath(*itertools.takewhile(lambda part: not set(part) & set("*?[\\"), path.parts))
            mapped = self._root(str(plain))
            # "**" is no more than "*" to Go, and folders to any depth to Python.
            found = mapped.glob(str(path.relative_to(plain)).replace("**", "*"))
            yield from map(str, sorted(plain / item.relative_to(mapped) for item in found))

    def _generated(self, instead: str) -> KatanodeError:
        lines = files.read_bounded(self._root(self._path)).decode("utf-8", "replace").splitlines()
        said = [masked(line.strip()) for line in lines[:10] if line.lstrip().startswith("#")]
        evidence = (
            "its first lines: " + " ".join(said)[:300] if said else f"it stands in {PurePosixPath(self._path).parent}"
        )
        return KatanodeError(
            Reason.CONFIG_GENERATED, f"{self._path} is written by another program", evidence=evidence, remedy=instead
        )


def _declared(file: FileChange) -> set[str]:
    """The handlers that our block or drop-in declares at present."""
    return _handlers(file.before or b"")


def _handlers(data: bytes) -> set[str]:
    ours = data if data.startswith(imports.BANNER.encode()) else block.inside(data)
    return set(effective.runtimes(_parsed(ours.partition(block.RESTATED.encode())[0])))


def _kept(ours: bytes) -> Mapping[str, Any]:
    """What our block or drop-in restates of others at present."""
    return effective.containerd_table(_parsed(ours.partition(block.RESTATED.encode())[2]))


def _parsed(ours: bytes) -> dict[str, Any]:
    """What is ours, as TOML; nothing where somebody broke it: it is replaced whole, never repaired."""
    try:
        return tomllib.loads(ours.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _v2(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plugins' tables that containerd 1.x honours, of a file that may hold those of 2.x as well."""
    plugins = tree.get("plugins", {})
    return {key: value for key, value in plugins.items() if key == "io.containerd.grpc.v1.cri"}


def _less(kept: Mapping[str, Any], stated: Mapping[str, Any]) -> Mapping[str, Any]:
    """What still has to be restated beside what the file has come to state by itself."""
    runtimes = {
        name: table for name, table in kept.get("runtimes", {}).items() if name not in stated.get("runtimes", {})
    }
    rest = {key: value for key, value in kept.items() if key != "runtimes" and key not in stated}
    return {**rest, **({"runtimes": runtimes} if runtimes else {})}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    together = {**old.get("runtimes", {}), **new.get("runtimes", {})}
    return {**old, **new, **({"runtimes": together} if together else {})}


def _line_of(data: bytes, name: str) -> str:
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if line.lstrip().startswith("[") and f"runtimes.{name}" in line.replace('"', "").replace("'", ""):
            return f"line {number}: {line.strip()}"
    return f"the name {name} stands in the file"
