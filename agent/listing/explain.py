"""One sandbox, and what came of the debug switch, for people. Lines that are to be copied are never broken."""

import shlex
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from agent.debugging import Switched
from agent.fleet.table import age
from agent.kata import debug
from agent.kata.tomlwrite import value
from agent.listing.detail import Detail
from agent.listing.hints import Command
from agent.listing.row import WITHOUT_VM, mark_words
from agent.listing.show import cores, mebibytes
from agent.reasons import CATALOGUE, Reason
from agent.sandboxes.naming import COMPONENTS
from agent.show import pairs


def sandbox(target: Console, seen: Detail, commands: Sequence[Command], now: float, *, in_pod: bool) -> None:
    """Prints a sandbox."""
    own = seen.row.sandbox
    target.print(Text.assemble((seen.row.pod or "a pod that is not known", "bold"), f"  {own.id}"), soft_wrap=True)
    if seen.row.mark:
        target.print(Text(f"! {mark_words(seen.row.mark)}", style="yellow"))
    target.print(pairs(_facts(seen, now)))
    target.print(Text())
    target.print(_processes(seen))
    for heading, lines in (
        ("bundle", [seen.bundle] if seen.bundle else []),
        ("state", seen.folders),
        ("sockets", seen.sockets),
        ("cgroups", _cgroups(seen)),
        ("configuration", [seen.config] if seen.config else []),
    ):
        _lines(target, heading, lines)
    where = ", from this pod on the node" if in_pod else ""
    target.print(Text(f"\nlook further{where}", style="bold"))
    for command in commands:
        target.print(Text(f"# {command.title}", style="dim"), soft_wrap=True)
        target.print(Text(command.line), soft_wrap=True)


def switched(target: Console, made: Switched, prefix: Sequence[str]) -> None:
    """Prints what came of the switch."""
    on = made.since is not None
    was = "" if made.changed else " already"
    since = f", since {debug.moment(made.since)}" if made.since is not None and not made.changed else ""
    target.print(Text(f"{made.handler}: debug output is{was} {'on' if on else 'off'}{since}", style="bold"))
    if made.changed:
        target.print("  for sandboxes that start from now on; those that run keep what they have")
    for table, keys in made.tables.items():
        told = ", ".join(f"{key} = {value(item)}" for key, item in keys.items())
        target.print(Text(f"  [{table}] {told}"))
    if made.seconds is not None:
        target.print(f"  proved: a sandbox started so in {made.seconds:.2f} s")
    if made.trouble is not None and made.trouble.reason is not None:
        target.print(Text(f"! {CATALOGUE[made.trouble.reason].title}  [{made.trouble.reason}]", style="yellow"))
        target.print(Text(f"    {made.trouble.evidence}"))
        target.print(Text(f"  → {made.trouble.remedy}"))
    if not on:
        return
    reason = Reason.DEBUG_OUTPUT_ON
    target.print(Text(f"! {CATALOGUE[reason].title}  [{reason}]", style="yellow"))
    target.print(Text(f"  → {debug.remedy(made.handler)}"), soft_wrap=True)
    follow = ("journalctl", "--follow", "SYSLOG_IDENTIFIER=kata", *_unit(made.unit))
    target.print(Text("\nread it", style="bold"))
    target.print(Text(shlex.join((*prefix, *follow))), soft_wrap=True)


def _unit(unit: str) -> tuple[str, ...]:
    return ("+", f"_SYSTEMD_UNIT={unit}") if unit else ()


def _facts(seen: Detail, now: float) -> list[tuple[str, str]]:
    own, row = seen.row.sandbox, seen.row
    machine = f"{own.vcpus} vCPU{'' if own.vcpus == 1 else 's'}" if own.holds_vm else "none is held"
    shares = ", ".join(f"{c} {mebibytes(row.part(c))}" for c in COMPONENTS if c in own.processes)
    kind = "" if row.is_proportional else ", resident: shared pages count in each"
    facts = [
        ("pod uid", own.uid or "not known"),
        ("handler", own.handler or "not known"),
        ("hypervisor", own.hypervisor or "not seen"),
        ("release", own.release or "not one of katanode's"),
        ("started", f"{debug.moment(own.started)}, {age(now - own.started)} ago"),
        ("machine", machine if row.mark != WITHOUT_VM else f"{machine}: it runs without isolation"),
        ("CPU", f"{cores(row.cores)}, and {sum(each.cpu_seconds for each in seen.processes):.1f} s since it started"),
        ("memory", f"{mebibytes(row.memory)} ({shares}{kind})"),
    ]
    if seen.memory is not None:
        granted = f", {mebibytes(seen.allowed)} granted by its RuntimeClass" if seen.allowed else ""
        facts.append(("overhead", f"{mebibytes(seen.memory.beyond_guest)} beyond the guest's own{granted}"))
    facts.append(("I/O", f"{mebibytes(seen.io.read)} read, {mebibytes(seen.io.written)} written"))
    if seen.network is not None:
        net = seen.network
        drops = f"{net.receive_drops} and {net.transmit_drops} packets dropped"
        facts.append(
            ("network", f"{mebibytes(net.received)} received, {mebibytes(net.transmitted)} sent, {drops} (the tap's)")
        )
    facts.append(("interfaces", ", ".join(seen.taps) or "not seen"))
    facts.append(("network namespace", seen.namespace or "not known"))
    return facts


def _processes(seen: Detail) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("PROCESS", "PID", "CPU", "RESIDENT", "THREADS"):
        table.add_column(name, no_wrap=True, justify="left" if name == "PROCESS" else "right")
    table.add_column("PROGRAM", overflow="fold")
    for each in seen.processes:
        table.add_row(
            each.component,
            str(each.pid),
            f"{each.cpu_seconds:.1f}s",
            mebibytes(each.resident),
            str(each.threads),
            each.program or "(not to be read)",
        )
    return table


def _cgroups(seen: Detail) -> list[str]:
    found: dict[str, list[str]] = {}
    for each in seen.processes:
        found.setdefault(each.cgroups or "(not to be read)", []).append(each.component)
    return [f"{path}  ({', '.join(dict.fromkeys(names))})" for path, names in found.items()]


def _lines(target: Console, heading: str, lines: Sequence[str]) -> None:
    if lines:
        target.print(Text(f"\n{heading}", style="dim"))
        for line in lines:
            target.print(Text(line), soft_wrap=True)
