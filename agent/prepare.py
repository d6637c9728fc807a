"""Preparing the node: kernel modules and sysctls, now and at every boot; and taking that back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.cri.client import Client
from agent.cri.daemon import Daemon
from agent.errors import KatanodeError
from agent.host import files, modules, sysctl
from agent.host.files import read_if_there
from agent.host.modules import ModuleFacts
from agent.host.sysctl import Sysctls
from agent.node import Node
from agent.report import Finding, from_error, ok
from agent.sandboxes import canary
from agent.state import STATE, State

CONFIGURATIONS = "/etc/kata-containers"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The node's modules and sysctls, and the files that set them at boot.

    Attributes:
        modules: the kernel's modules.
        load: those that are to be loaded.
        raises: sysctl to the value that it is to get.
        now: sysctl to its present value.
        texts: path to the file's bytes, now and as wanted; b"" where none is wanted.
    """

    modules: ModuleFacts
    load: tuple[str, ...]
    raises: Mapping[str, int]
    now: Mapping[str, int | None]
    texts: Mapping[str, tuple[bytes | None, bytes]]


def survey(node: Node, state: State) -> HostFacts:
    """Reads what there is and computes what is missing.

    Raises:
        KatanodeError: `FILE_READ_FAILED`, `SYSCTL_FAILED`.
    """
    wish = node.settings.node
    facts = modules.survey(node.root)
    texts: dict[str, tuple[bytes | None, bytes]] = {}
    if wish.modules:
        texts[modules.LOAD_FILE] = (read_if_there(node.root(modules.LOAD_FILE)), modules.desired_file(facts))
    now: dict[str, int | None] = {}
    if wish.sysctls:
        now = Sysctls(node.root, node.runner).read_all(wish.sysctl)
        before = {key: value for key, value in now.items() if value is not None}
        before |= {key: old for key, (old, _) in state.sysctls.items() if key in before}
        content = sysctl.desired_file(before, wish.sysctl, sysctl.configured(node.root))
        texts[sysctl.SYSCTL_FILE] = (read_if_there(node.root(sysctl.SYSCTL_FILE)), content)
    return HostFacts(
        modules=facts,
        load=modules.to_load(facts) if wish.modules else (),
        raises=sysctl.plan(now, wish.sysctl).raises if wish.sysctls else {},
        now=now,
        texts={path: pair for path, pair in texts.items() if (pair[0] or b"") != pair[1]},
    )


def perform(node: Node, facts: HostFacts, state: State) -> tuple[State, tuple[Finding, ...]]:
    """Loads, raises and writes; a module that does not load and a sysctl that is refused are findings, not the end.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    findings: list[Finding] = []
    loaded, refused = [], []
    for name in facts.load:
        try:
            modules.load(node.root, node.runner, name)
        except KatanodeError as error:
            refused.append(name)
            findings.append(from_error(f"kernel module {name} loads", error))
        else:
            loaded.append(name)
            node.say(f"kernel module {name} loaded")
    sysctls = Sysctls(node.root, node.runner)
    raised = dict(state.sysctls)
    for key, value in facts.raises.items():
        before = facts.now[key]
        if before is None:
            continue
        # Remembered before it is done: a crash in between costs nothing, the other order the old value.
        raised[key] = (raised.get(key, (before, value))[0], value)
        state = node.remember(replace(state, sysctls=raised))
        try:
            sysctls.raise_to(key, value)
        except KatanodeError as error:
            findings.append(from_error(f"sysctl {key} can be raised", error))
        else:
            node.say(f"sysctl {key} raised from {before} to {value}")
    if loaded:
        state = node.remember(replace(state, modules=tuple(dict.fromkeys((*state.modules, *loaded)))))
    for path, (_, wanted) in facts.texts.items():
        content = modules.desired_file(facts.modules, refused=refused) if path == modules.LOAD_FILE else wanted
        state = write(node, state, path, content)
    return state, tuple(findings)


def write(node: Node, state: State, path: str, content: bytes) -> State:
    """Writes a file of katanode's own, or removes it when there is no content; remembers folders made for it."""
    mapped = node.root(path)
    if not content:
        if files.remove(mapped):
            node.say(f"{path} removed")
        return state
    state = make_folder(node, state, path.rpartition("/")[0])
    if read_if_there(mapped) != content:
        files.write_atomic(mapped, content)
        node.say(f"{path} written")
    return state


def make_folder(node: Node, state: State, path: str) -> State:
    """Makes a host folder outside katanode's own and remembers it, so that the uninstall can remove it when empty."""
    missing = []
    here = node.root(path)
    while not here.exists():
        missing.append(node.root.host_path(here))
        here = here.parent
    if missing:
        state = node.remember(replace(state, folders=tuple(dict.fromkeys((*missing, *state.folders)))))
        files.make_folder(node.root(path))
    return state


def sweep(node: Node, daemon: Daemon) -> None:
    """Removes what killed runs left: temporary files wherever katanode writes, and sandboxes of katanode's own.

    Args:
        node: the node, whose lock the caller holds.
        daemon: the runtime: it ran canaries and benches, and candidates for a check stood beside its configuration.

    Raises:
        KatanodeError: `FILE_WRITE_FAILED`.
    """
    own = (modules.LOAD_FILE, sysctl.SYSCTL_FILE, STATE, daemon.config_path, "/usr/local/bin/x", "/opt/x")
    for path in own:
        files.sweep(node.root(path).parent)
    configurations = node.root(CONFIGURATIONS)
    for folder in (configurations, *configurations.glob("katanode/*"), *configurations.glob("katanode/*/.*")):
        files.sweep(folder)
    with Client(node.root(daemon.socket)) as client:
        canary.sweep(client, node.settings.canary.timeout_seconds)


def undo(node: Node, state: State) -> tuple[Finding, ...]:
    """Takes back what `perform` did: files, sysctl values, and modules that nobody uses now.

    Returns:
        What could not be taken back.
    """
    for path in (modules.LOAD_FILE, sysctl.SYSCTL_FILE):
        files.remove(node.root(path))
    before = {key: old for key, (old, _) in state.sysctls.items()}
    raised = {key: new for key, (_, new) in state.sysctls.items()}
    failures = Sysctls(node.root, node.runner).restore(before, raised)
    for name in reversed(state.modules):
        # In use by somebody else meanwhile: then it is not ours to take away.
        node.runner.run(("modprobe", "--remove", name), timeout=30, check=False)
    return tuple(from_error("sysctls are as before", error) for error in failures)


def take_back(node: Node, state: State) -> None:
    """Leaves a node that had nothing of katanode's as it was, when its first release cannot be had or used.

    What is unpacked already stays: only the wish has to be mended, and the next run need not fetch it again.
    """
    undo(node, state)
    for folder in state.folders:
        files.remove_empty(node.root(folder))
    files.remove(node.root(STATE))


def findings_on_modules(facts: ModuleFacts) -> tuple[Finding, ...]:
    """The article's `lsmod` lines: what each wanted module's state is; the functional probes judge."""
    words = [f"{name}: {facts.state(name)}" for name in modules.wanted_modules(facts.vendor)]
    return (ok("kernel modules", ", ".join(words)),)
