"""The series of sandboxes in a scrape, one text for hundreds of them.

prometheus_client takes 20 µs to write a sample (measured), a fifth of a second for 500 sandboxes; here a sandbox's
labels are written once and each sample is one line, which takes a twentieth of that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from agent.sandboxes.census import Sandbox
from agent.sandboxes.measure import IO, Memory, Network
from agent.sandboxes.members import Process


class Row(NamedTuple):
    """A sandbox and what was measured of it.

    Attributes:
        sandbox: the sandbox.
        io: its I/O.
        network: its taps' counters; None without a tap.
        memory: its memory; None before it was measured.
        allowed: bytes of overhead that its RuntimeClass grants; None when it is not known.
    """

    sandbox: Sandbox
    io: IO
    network: Network | None
    memory: Memory | None
    allowed: int | None


Labels = Sequence[tuple[str, str]]
_Values = Iterable[tuple[str, float]]
"""Component, or "" for the sandbox as a whole, and value."""


class Family(NamedTuple):
    """A family of metrics.

    Attributes:
        name: without the ending of a counter's samples.
        kind: `counter` or `gauge`.
        words: what it is.
        values: of a sandbox.
    """

    name: str
    kind: str
    words: str
    values: Callable[[Row], _Values] = lambda _: ()

    @property
    def sample(self) -> str:
        """The name of its samples."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _each(value: Callable[[Process], float]) -> Callable[[Row], _Values]:
    """A family by component."""
    return lambda row: [(name, sum(map(value, group))) for name, group in row.sandbox.processes.items()]


def _one(value: Callable[[Row], float | None]) -> Callable[[Row], _Values]:
    """A family of the whole sandbox; None is not said."""
    return lambda row: () if (made := value(row)) is None else (("", made),)


def _net(value: Callable[[Network], float]) -> Callable[[Row], _Values]:
    return lambda row: (("", value(row.network)),) if row.network is not None else ()


_FAMILIES = (
    Family(
        "katanode_sandbox_cpu_seconds", "counter", "CPU time on the node, by component.", _each(lambda p: p.cpu_seconds)
    ),
    Family(
        "katanode_sandbox_resident_memory_bytes",
        "gauge",
        "Memory in RAM, by component; what two processes share counts in both.",
        _each(lambda p: p.resident),
    ),
    Family(
        "katanode_sandbox_proportional_memory_bytes",
        "gauge",
        "Memory in RAM, by component; what several processes share is divided among them.",
        lambda row: row.memory.proportional.items() if row.memory else (),
    ),
    Family(
        "katanode_sandbox_overhead_memory_bytes",
        "gauge",
        "Memory of all components beyond the guest's own.",
        _one(lambda row: row.memory.beyond_guest if row.memory else None),
    ),
    Family(
        "katanode_sandbox_overhead_allowed_bytes",
        "gauge",
        "Memory that the pod's RuntimeClass grants as overhead; 0 when it grants none.",
        _one(lambda row: row.allowed),
    ),
    Family(
        "katanode_sandbox_threads",
        "gauge",
        "Threads of all components.",
        _one(lambda row: sum(p.threads for group in row.sandbox.processes.values() for p in group)),
    ),
    Family(
        "katanode_sandbox_io_read_bytes", "counter", "Bytes read from block devices.", _one(lambda row: row.io.read)
    ),
    Family(
        "katanode_sandbox_io_written_bytes",
        "counter",
        "Bytes written to block devices.",
        _one(lambda row: row.io.written),
    ),
    Family(
        "katanode_sandbox_network_receive_bytes",
        "counter",
        "Bytes that came to the sandbox.",
        _net(lambda n: n.received),
    ),
    Family(
        "katanode_sandbox_network_transmit_bytes",
        "counter",
        "Bytes that the sandbox sent.",
        _net(lambda n: n.transmitted),
    ),
    Family(
        "katanode_sandbox_network_receive_drops",
        "counter",
        "Packets to the sandbox that were dropped before it took them.",
        _net(lambda n: n.receive_drops),
    ),
    Family(
        "katanode_sandbox_network_transmit_drops",
        "counter",
        "Packets from the sandbox that the node dropped.",
        _net(lambda n: n.transmit_drops),
    ),
    Family("katanode_sandbox_vcpus", "gauge", "vCPUs of its virtual machine.", _one(lambda row: row.sandbox.vcpus)),
    Family(
        "katanode_sandbox_start_time_seconds",
        "gauge",
        "When it started, in Unix seconds.",
        _one(lambda row: row.sandbox.started),
    ),
    Family(
        "katanode_sandbox_holds_vm",
        "gauge",
        "Whether a process of it holds a KVM virtual machine.",
        _one(lambda row: int(row.sandbox.holds_vm)),
    ),
)


class Text:
    """The text of one scrape.

    Args:
        limit: series of sandboxes at most.
        openmetrics: in the form of OpenMetrics instead of Prometheus' own.

    Attributes:
        dropped: series that were cut.
    """

    def __init__(self, limit: int, *, openmetrics: bool) -> None:
        self.dropped = 0
        self._openmetrics = openmetrics
        self._left = limit
        self._lines: list[list[str]] = [[] for _ in _FAMILIES]

    @property
    def is_full(self) -> bool:
        """Whether a sandbox was cut: so are all after it, that it be the same ones in every scrape."""
        return self.dropped > 0

    def add(self, row: Row) -> None:
        """Adds a sandbox's series, or counts them as cut."""
        made = [tuple(family.values(row)) for family in _FAMILIES]
        count = sum(map(len, made))
        if self.is_full or count > self._left:
            self.dropped += count
            return
        self._left -= count
        labels = labels_of(row.sandbox)
        for family, values, lines in zip(_FAMILIES, made, self._lines, strict=True):
            for component, value in values:
                inner = f'{labels},component="{component}"' if component else labels
                lines.append(f"{family.sample}{{{inner}}} {value}\n")

    def families(self) -> str:
        """All that was added."""
        return "".join(
            self._heading(family) + "".join(lines)
            for family, lines in zip(_FAMILIES, self._lines, strict=True)
            if lines
        )

    def own(self, family: Family, values: Mapping[Labels, float]) -> str:
        """A family of the node's own, by labels."""
        text = self._heading(family)
        for labels, value in values.items():
            written = f"{{{_written(labels)}}}" if labels else ""
            text += f"{family.sample}{written} {value}\n"
        return text

    def _heading(self, family: Family) -> str:
        # OpenMetrics names a counter without the ending of its samples.
        name = family.name if self._openmetrics else family.sample
        return f"# HELP {name} {family.words}\n# TYPE {name} {family.kind}\n"


def labels_of(sandbox: Sandbox) -> str:
    """The labels of a sandbox as they are written; those of two sandboxes of one pod are the same."""
    return _written(
        (
            ("namespace", sandbox.namespace),
            ("pod", sandbox.pod),
            ("handler", sandbox.handler),
            ("hypervisor", sandbox.hypervisor),
        )
    )


def _written(labels: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def _escaped(value: str) -> str:
    """A label's value: any Unicode that UTF-8 can have, with three characters escaped (Prometheus' text format)."""
    legal = value.encode("utf-8", "replace").decode()
    return legal.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
