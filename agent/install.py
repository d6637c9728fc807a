"""The release on this node and what is made from it: hypervisor configurations, links, the runtime's handlers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.cri.daemon import Daemon
from agent.cri.handler import Handler
from agent.errors import KatanodeError
from agent.kata import basefile, handlers, links, pins, releases, render, tunables
from agent.kata.handlers import ResolvedHandler
from agent.kata.releases import Release, Wanted
from agent.node import Node
from agent.prepare import make_folder
from agent.proofs import Subject
from agent.report import Finding
from agent.settings import Handler as Tunables
from agent.state import State

RUNTIME_TYPE = "io.containerd.kata.v2"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A handler with the files of its hypervisor configuration."""

    handler: ResolvedHandler
    files: Mapping[str, bytes]


def wish(node: Node) -> Wanted:
    """The release that the settings want.

    Raises:
        KatanodeError: `RELEASE_UNPINNED`, `ARCHITECTURE_UNSUPPORTED`, `HANDLER_UNKNOWN`.
    """
    for name in node.settings.kata.handlers:
        handlers.lookup(name)
    return releases.wanted(node.settings.kata, pins.known(node.root, node.settings.kata), node.arch)


def present(node: Node, state: State, wanted: Wanted) -> Release | None:
    """The release to work with if it is there: the wanted one, or the one that an operator went back to from it."""
    held = state.held == wanted.id and releases.find(node.root, state.release)
    return held or releases.find(node.root, wanted.id)


def rendered(node: Node, release: Release) -> tuple[Rendered, ...]:
    """The hypervisor configuration of every wanted handler, as the settings want it; with debug output where it is on.

    Raises:
        KatanodeError: `HANDLER_NOT_IN_RELEASE`, `RELEASE_DAMAGED`, `TUNABLE_UNKNOWN`, `TUNABLE_WRONG_TYPE`,
            `TUNABLE_WRONG_VALUE`.
    """
    made, debug = [], node.remembered().debug
    for name in node.settings.kata.handlers:
        choice = node.settings.kata.runtime
        handler = handlers.resolve(name, choice, release.version, node.root, release.path)
        base = basefile.load(node.root, handler)
        checked = tunables.check(base, node.settings.handlers.get(name, Tunables()), node.root)
        made.append(Rendered(handler, render.render(base, checked, with_debug=name in debug)))
    return tuple(made)


def differences(node: Node, release: Release, wanted: Sequence[Rendered]) -> dict[str, dict[str, tuple[bytes, bytes]]]:
    """Handler to its files that are not as wanted, name to bytes now and then."""
    found = {}
    for item in wanted:
        now = render.installed(node.root, item.handler.name, release.id)
        names = now.keys() | item.files.keys()
        changed = {
            n: (now.get(n, b""), item.files.get(n, b"")) for n in sorted(names) if now.get(n) != item.files.get(n)
        }
        if changed:
            found[item.handler.name] = changed
    return found


def install_configurations(
    node: Node, state: State, release: Release, wanted: Sequence[Rendered]
) -> tuple[State, dict[str, str]]:
    """Writes what differs and has Kata's own program load it.

    Returns:
        The state, and for each handler that was changed what its link led to before.

    Raises:
        KatanodeError: `KATA_CONFIG_REFUSED`, `FILE_WRITE_FAILED`; the links lead to where they led.
    """
    changed = differences(node, release, wanted)
    state = make_folder(node, state, render.HOME) if changed else state
    before: dict[str, str] = {}
    try:
        for item in wanted:
            name = item.handler.name
            if name in changed:
                before[name] = render.install(node.root, name, release.id, item.files)
                render.prove(node.runner, node.root, item.handler, render.config_path(name, release.id))
                node.say(f"hypervisor configuration of {name} written")
    except KatanodeError:
        switch_back(node, release, before)
        raise
    return state, before


def switch_back(node: Node, release: Release, before: Mapping[str, str]) -> None:
    """Lets the links of handlers lead again to where they led."""
    for name, target in before.items():
        render.switch_back(node.root, name, release.id, target)


def subjects(daemon: Daemon, release: Release, wanted: Sequence[Rendered]) -> tuple[Subject, ...]:
    """The runtime's handlers, pinned to a release."""
    return tuple(
        Subject(
            runtime_handler(daemon, item.handler.name, item.handler.shim, release.id), item.handler.shim, item.files
        )
        for item in wanted
    )


def expected(node: Node, daemon: Daemon, wanted: Wanted) -> tuple[Handler, ...]:
    """The runtime's handlers for a release that is not unpacked yet, for the plan."""
    kata = node.settings.kata
    return tuple(
        runtime_handler(
            daemon, name, f"{wanted.path}/{handlers.expected_shim(name, kata.runtime, wanted.version)}", wanted.id
        )
        for name in kata.handlers
    )


def runtime_handler(daemon: Daemon, name: str, shim: str, release_id: str) -> Handler:
    """A handler as the runtime is told of it.

    containerd 1.6 ignores `runtime_path`, but takes the shim's absolute path as `runtime_type`, as every generation
    does (measured on 1.6.20, 1.7.24 and four 2.x): so there too the shim is pinned, and no PATH has a say.
    """
    honours = daemon.honours_runtime_path
    return Handler(
        name=name,
        runtime_type=RUNTIME_TYPE if honours else shim,
        runtime_path=shim if honours else "",
        config_path=render.config_path(name, release_id),
        snapshotter=handlers.lookup(name).snapshotter,
    )


def wanted_links(node: Node, release: Release, wanted: Sequence[Rendered]) -> tuple[links.Link, ...]:
    """The links that are missing or lead elsewhere."""
    names = [item.handler.name for item in wanted]
    people = [
        links.Link(f"{render.FOLDER}/{name}/{render.BASE}", f"{release.id}/{render.BASE}")
        for name in names
        if not render.is_published(node.root, name, release.id)
    ]
    every = links.wanted(node.root, release.path, [item.handler for item in wanted])
    return (*people, *links.missing(node.root, every))


def publish(
    node: Node, state: State, release: Release, wanted: Sequence[Rendered]
) -> tuple[State, tuple[Finding, ...]]:
    """Lets everything that people follow lead to the release: only now, when it is proved.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    for item in wanted:
        render.publish(node.root, item.handler.name, release.id)
    for link in wanted_links(node, release, wanted):
        state = make_folder(node, state, link.path.rpartition("/")[0])
        links.make(node.root, link)
    every = links.wanted(node.root, release.path, [item.handler for item in wanted])
    return state, tuple(links.foreign(node.root, every))


def collectable(node: Node, state: State, current: str) -> tuple[Release, ...]:
    """Releases that are neither current nor kept nor used by anything alive.

    The one before is kept by name, further ones by age: `kata.keep` in all.
    """
    others = [r for r in releases.installed(node.root) if r.id != current]
    others.sort(key=lambda r: (r.id == state.previous, node.root(r.path).stat().st_mtime), reverse=True)
    spare = others[node.settings.kata.keep :]
    used = releases.in_use(node.root) if spare else frozenset()
    return tuple(r for r in spare if r.id not in used)


def collect(node: Node, state: State, current: str) -> None:
    """Removes what `collectable` finds, and renderings that belong to nothing any more."""
    for release in collectable(node, state, current):
        releases.remove(node.root, release)
        node.say(f"release {release.id} removed: nothing uses it")
    kept = frozenset(r.id for r in releases.installed(node.root))
    render.collect(node.root, dict.fromkeys(node.settings.kata.handlers), kept)


def remember(state: State, release: Release, wanted: Wanted) -> State:
    """The state once a release is in force."""
    if release.id == state.release:
        return state if state.held in {"", wanted.id} else replace(state, held="")
    return replace(state, release=release.id, previous=state.release, held="")
