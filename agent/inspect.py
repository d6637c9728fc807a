"""Looking without touching: `check` and `status`."""

import time
from dataclasses import dataclass

from agent import install, prepare
from agent.cri.client import Client, CRIError
from agent.cri.configuration import Configuration
from agent.cri.daemon import Daemon, find
from agent.cri.listing import Listing
from agent.errors import KatanodeError, bounded
from agent.host import modules, systemd
from agent.kata import debug, links, releases, render
from agent.kata.releases import Release
from agent.node import Node
from agent.probes import probe_all
from agent.proofs import CHECK, Proofs, words
from agent.reasons import Reason, Severity
from agent.reconcile import SPACE_NEEDED, report
from agent.report import Capability, Finding, Report, bad, concerning, from_error, ok
from agent.report import State as Verdict
from agent.sandboxes import findings as running
from agent.state import State
from agent.survey import quick_probes
from agent.undo import running_sandboxes


def check(node: Node, *, sandboxes: bool = True) -> Report:
    """Everything that Kata needs: what the article's requirements and troubleshooting sections ask, and more.

    Args:
        node: the node.
        sandboxes: look at the running ones too.

    Raises:
        KatanodeError: only for what concerns no finding, such as damaged state.
    """
    state = node.remembered()
    release, found = _release(node, state)
    findings = [*probe_all(node.root, node.runner, space_needed=0 if release else SPACE_NEEDED)]
    findings += prepare.findings_on_modules(modules.survey(node.root))
    daemon, seen = _runtime(node)
    findings += [*seen, *found]
    proofs = Proofs(node, daemon, ())
    if release is not None:
        rendered, said = _configurations(node, release)
        findings += said
        if daemon is not None:
            proofs = Proofs(node, daemon, install.subjects(daemon, release, rendered))
            proofs.recall(state)
            findings += _handlers(node, daemon, proofs)
    if sandboxes and daemon is not None:
        findings += running.look(node.root, Listing(node.root(daemon.socket)))
    return report(node, release, proofs, findings)


def _release(node: Node, state: State) -> tuple[Release | None, list[Finding]]:
    check_name = "the release is installed and untouched"
    try:
        wanted = install.wish(node)
        release = install.present(node, state, wanted)
        if release is None:
            evidence = f"{wanted.id} is not in {releases.FOLDER}"
            return None, [bad(check_name, Reason.NOT_INSTALLED, evidence, capability=Capability.RELEASE)]
        releases.verify(node.root, release)
    except KatanodeError as error:
        return None, [from_error(check_name, error, Capability.RELEASE)]
    found = [ok(check_name, release.id, Capability.RELEASE)]
    if state.held:
        found.append(ok("held by `katanode rollback`", f"{release.id} instead of {state.held}"))
    return release, found


def _configurations(node: Node, release: Release) -> tuple[tuple[install.Rendered, ...], list[Finding]]:
    check_name = "hypervisor configuration"
    try:
        rendered = install.rendered(node, release)
    except KatanodeError as error:
        return (), [from_error(check_name, error, Capability.CONFIGURATION)]
    findings: list[Finding] = []
    stale = install.differences(node, release, rendered)
    for item in rendered:
        name = item.handler.name
        if name in stale:
            evidence = f"{', '.join(stale[name])} of {name} are not as the settings want them"
            findings.append(bad(check_name, Reason.NOT_INSTALLED, evidence, handlers=(name,)))
            continue
        findings += render.findings(item.handler, item.files)
        try:
            render.prove(node.runner, node.root, item.handler, render.config_path(name, release.id))
        except KatanodeError as error:
            findings.append(from_error(check_name, error, Capability.CONFIGURATION))
    findings += links.foreign(node.root, links.wanted(node.root, release.path, [r.handler for r in rendered]))
    return rendered, findings


def _runtime(node: Node) -> tuple[Daemon | None, list[Finding]]:
    try:
        daemon = find(node.root, node.settings.runtime.socket)
    except KatanodeError as error:
        return None, [from_error("a container runtime serves CRI", error, Capability.RUNTIME)]
    where = f"containerd {daemon.version}, {daemon.socket}, process {daemon.pid}, {daemon.unit or 'no systemd unit'}"
    findings = [ok("a container runtime serves CRI", where, Capability.RUNTIME)]
    configuration = Configuration(node.root, node.runner, daemon)
    try:
        configuration.current()
        configuration.wish(())
        findings.append(ok("its configuration can be added to", daemon.config_path))
    except KatanodeError as error:
        findings.append(from_error("its configuration can be added to", error, Capability.RUNTIME))
    try:
        node.policy.check(daemon)
    except KatanodeError as error:
        findings.append(from_error("it is known how to restart it", error, Capability.RUNTIME))
    return daemon, [*findings, *_network(node, daemon), *_log(node, daemon)]


def _log(node: Node, daemon: Daemon) -> list[Finding]:
    """The article's `journalctl -u containerd | grep kata`: what the runtime complained of in the last hour."""
    if not daemon.unit:
        return []
    try:
        lines = systemd.log_lines(node.runner, daemon.unit, time.time() - 3600, count=2000).splitlines()
    except KatanodeError as error:
        return [from_error("the runtime's log", error)]
    told = [line for line in lines if "kata" in line and ("level=error" in line or "level=fatal" in line)]
    check_name = "the runtime complains of Kata in its log"
    if not told:
        return [ok("the runtime does not complain of Kata in its log", "last hour")]
    return [Finding(check_name, Severity.INFO, bounded("\n".join(told[-3:])))]


def _network(node: Node, daemon: Daemon) -> list[Finding]:
    """The article's `cat /etc/cni/net.d/*.conf`: what the runtime itself says of the pod network."""
    with Client(node.root(daemon.socket)) as client:
        try:
            status = client.status()
        except CRIError as error:
            return [from_error("the runtime is ready", error, Capability.RUNTIME)]
    folder = node.root("/etc/cni/net.d")
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    files = f"/etc/cni/net.d: {', '.join(names) or 'nothing'}"
    if status.network_ready:
        return [ok("a pod network is ready", files)]
    evidence = f"{status.network_message}\n{files}"
    return [bad("a pod network is ready", Reason.NETWORK_PLUGIN_NOT_READY, evidence, capability=Capability.CANARY)]


def _handlers(node: Node, daemon: Daemon, proofs: Proofs) -> list[Finding]:
    findings = []
    with Client(node.root(daemon.socket)) as client:
        loaded = client.status().handlers
    for subject in proofs.subjects:
        name = subject.handler.name
        if name not in loaded:
            why = f"the daemon has no handler {name}"
            findings.append(bad("the runtime has the handler", Reason.HANDLER_NOT_LOADED, why, handlers=(name,)))
        if name in proofs.held:
            good = ok(CHECK, words(proofs.held[name]), Capability.CANARY)
            findings.append(concerning(good, name))
    return findings


@dataclass(frozen=True, slots=True)
class Status:
    """What is installed, what was proved and what runs."""

    report: Report
    rows: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, object]:
        """The status for machines."""
        return {**self.report.as_json(), "details": dict(self.rows)}


def status(node: Node) -> Status:
    """What is installed, proved and running, with a look at KVM and the devices only.

    Raises:
        KatanodeError: `FILE_READ_FAILED` when its own memory cannot be read.
    """
    state = node.remembered()
    release = releases.find(node.root, state.release)
    findings = [*quick_probes(node)]
    daemon: Daemon | None = None
    try:
        daemon = find(node.root, node.settings.runtime.socket)
        rows = [("containerd", f"{daemon.version} ({daemon.config_path}, {daemon.unit or 'no systemd unit'})")]
    except KatanodeError as error:
        findings.append(from_error("a container runtime serves CRI", error, Capability.RUNTIME))
        evidence = f" ({error.evidence})" if error.evidence else ""
        rows = [("containerd", f"{error.message}{evidence}: {error.remedy}")]
    if node.journal.read() is not None:
        rows.append(("interrupted", "a change was left in the middle; the next `katanode apply` finishes it"))
    if release is None:
        return Status(Report(tuple(findings), (), Verdict.ABSENT), (*rows, ("release", "none: run `katanode apply`")))
    rendered, said = _configurations(node, release)
    findings += said
    proofs = Proofs(node, daemon, install.subjects(daemon, release, rendered) if daemon else ())
    proofs.recall(state)
    others = [r.id for r in releases.installed(node.root) if r.id != release.id]
    rows += [
        ("release", f"{release.id}{' (held by `katanode rollback`)' if state.held else ''}"),
        ("kept releases", ", ".join(others) or "none"),
        *((name, _proof_words(proofs, name)) for name in node.settings.kata.handlers),
        *(("debug output", f"{name}: on since {debug.moment(since)}") for name, since in state.debug.items()),
    ]
    if daemon is not None:
        findings += _handlers(node, daemon, proofs)
        running = running_sandboxes(node, daemon)
        rows.append(("sandboxes", "\n".join([f"{len(running)} running", *running])))
    if state.failure is not None:
        rows.append(("last failure", f"{state.failure.reason}: {state.failure.message}"))
    return Status(report(node, release, proofs, findings), tuple(rows))


def _proof_words(proofs: Proofs, name: str) -> str:
    proof = proofs.held.get(name)
    if proof is None:
        return "not proved: `katanode check` says why"
    return f"proved: a sandbox started {words(proof)}"
