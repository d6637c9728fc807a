"""The parts of a bundle, in the order in which they stand in it: what matters most first, and logs last.

Where a bundle is full, the last ones are cut.
"""

from collections.abc import Callable, Iterator
from functools import partial

from agent.bundle import answers, configuration, kata, logs, machine, memory, sandboxes
from agent.bundle.gather import Part
from agent.bundle.piece import Failure, Piece
from agent.bundle.scene import Scene

_ALL: tuple[tuple[str, Callable[[Scene], Iterator[Piece | Failure]], float], ...] = (
    ("report.json", answers.report, 90.0),
    ("status.json", answers.status, 60.0),
    ("plan.json", answers.planned, 60.0),
    ("settings", memory.settings, 10.0),
    ("katanode", memory.memory, 15.0),
    ("containerd", configuration.configuration, 15.0),
    ("containerd/handlers.json", configuration.handlers, 30.0),
    ("containerd/cri.json", configuration.loaded, 30.0),
    ("kata", kata.kata, 15.0),
    ("node/versions.json", machine.versions, 60.0),
    ("node/modules.txt", machine.kernel_modules, 15.0),
    ("node/sysctls.txt", machine.kernel_parameters, 30.0),
    ("node/cpu.txt", machine.memory_and_cpu, 15.0),
    ("node/mounts.txt", machine.mounts, 15.0),
    ("node/cni.txt", machine.network_files, 15.0),
    ("sandboxes/cri.json", sandboxes.sandboxes, 30.0),
    ("sandboxes", sandboxes.traces, 15.0),
    ("logs/kernel.txt", logs.kernel_log, 30.0),
    ("logs/kata.txt", logs.kata_log, 30.0),
    ("logs/containerd.txt", logs.runtime_log, 30.0),
)


def parts(scene: Scene) -> list[Part]:
    """All parts."""
    return [Part(name, partial(bring, scene), seconds) for name, bring, seconds in _ALL]
