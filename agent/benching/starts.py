"""Starting and removing sandboxes through each handler in turn, and what each took."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.benching import memory
from agent.benching.choice import Chosen
from agent.benching.figures import Failure, Measured, Memory
from agent.benching.interrupts import Interrupts
from agent.benching.memory import Footprint
from agent.benching.percentiles import samples
from agent.benching.sandboxes import Sandboxes
from agent.errors import KatanodeError

Tell = Callable[[str], None]


@dataclass(slots=True)
class _Series:
    """What one handler's sandboxes took so far."""

    first: float | None = None
    starts: list[float] = field(default_factory=list)
    removals: list[float] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    cut_short: int = 0
    failure: Failure | None = None

    def measured(self, name: str) -> Measured:
        hypervisors = [f.hypervisor for f in self.footprints if f.hypervisor]
        return Measured(
            name,
            hypervisors[0] if hypervisors else "",
            self.first,
            samples(self.starts),
            samples(self.removals),
            Memory.of(self.footprints),
            self.cut_short,
            failure=self.failure,
        )


def measure(
    sandboxes: Sandboxes, chosen: Sequence[Chosen], count: int, interrupts: Interrupts, tell: Tell
) -> tuple[Measured, ...]:
    """Starts `count` sandboxes through each handler, one at a time, and looks at each.

    The handlers take turns, so that what changes on the node meanwhile meets them all. Before, each has one start that
    does not count: it fetches the pause image and warms the page cache for those after it.

    Args:
        sandboxes: where they are started.
        chosen: the handlers.
        count: starts for each.
        interrupts: ends it.
        tell: told of each start.
    """
    series: Mapping[str, _Series] = {handler.name: _Series() for handler in chosen}
    for number in range(count + 1):
        for handler in chosen:
            mine = series[handler.name]
            if mine.failure is None and not interrupts.caught:
                tell(f"{handler.name}: start {number} of {count}" if number else f"{handler.name}: first start")
                try:
                    _once(sandboxes, handler.handler, mine, counts=number > 0)
                except KatanodeError as error:  # one handler's failure is no reason not to measure the others
                    mine.failure = Failure.of(error)
                    sandboxes.clear()
    return tuple(series[handler.name].measured(handler.name) for handler in chosen)


def _once(sandboxes: Sandboxes, handler: str, series: _Series, *, counts: bool) -> None:
    started = sandboxes.start(handler)
    if not counts:
        series.first = started.seconds
        sandboxes.remove(started.id)
        return
    series.starts.append(started.seconds)
    footprint = memory.of_sandbox(started.id)
    whole = started.id in sandboxes.ready()
    removal = sandboxes.remove(started.id)
    if not whole:  # somebody stopped it: neither figure would be that of an idle sandbox, or of its removal
        series.cut_short += 1
        return
    series.removals.append(removal)
    if footprint is not None:
        series.footprints.append(footprint)
