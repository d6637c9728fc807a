"""Debug output of a handler's hypervisor, guest agent and shim: what is written for it, and the reminder that it is on.

It is an operator's wish for a while, kept in katanode's memory and not in the settings: see `agent/debugging.py`.
"""

import time
import tomllib
from collections.abc import Iterable, Mapping

from agent.kata.basefile import BaseFile, Kind
from agent.kata.tomlwrite import Value
from agent.reasons import CATALOGUE, Reason
from agent.report import Finding, bad

DROP_IN = "config.d/90-katanode-debug.toml"
"""Behind the settings' own drop-in: while debug output is on, it is on whatever they say."""


def tables(base: BaseFile) -> Mapping[str, Mapping[str, Value]]:
    """The tables that turn debug output on: only keys that the release knows.

    `enable_debug` is what both runtimes have. In runtime-rs the level of the shim's own lines was for several releases
    that of `log_level` alone (`update_component_log_level` in crates/runtimes), so that one is set beside it.
    """
    made: dict[str, dict[str, Value]] = {}
    for table, known in base.known.items():
        keys: dict[str, Value] = {}
        if known.get("enable_debug") is Kind.BOOL:
            keys["enable_debug"] = True
        if known.get("log_level") is Kind.STR:
            keys["log_level"] = "debug"
        made[table] = keys
    return made


def read(data: bytes) -> dict[str, dict[str, Value]]:
    """The tables of a drop-in that was made of `tables`."""
    made: dict[str, dict[str, Value]] = {}
    for name, table in tomllib.loads(data.decode()).items():
        inner = {f"{name}.{key}": value for key, value in table.items() if isinstance(value, dict)}
        made |= inner or {name: table}
    return made


def findings(since: Mapping[str, float], handlers: Iterable[str]) -> tuple[Finding, ...]:
    """The reminder, for each handler whose debug output is on.

    Args:
        since: handler to the time of the wish, in seconds since 1970.
        handlers: those that are wanted.
    """
    return tuple(
        bad(
            "debug output is off",
            Reason.DEBUG_OUTPUT_ON,
            f"on since {moment(since[name])}",
            remedy=remedy(name),
            handlers=(name,),
        )
        for name in handlers
        if name in since
    )


def remedy(*handlers: str) -> str:
    """The catalogue's remedy with the handlers' own names, to be copied."""
    general = CATALOGUE[Reason.DEBUG_OUTPUT_ON].remedy
    lines = [line_of(name) for name in handlers]
    return general.replace(line_of("HANDLER"), ", ".join(lines))


def line_of(handler: str) -> str:
    """What is typed to turn it off."""
    return f"katanode sandboxes debug {handler} off"


def moment(seconds: float) -> str:
    """A time as people read it; the same on every node."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
