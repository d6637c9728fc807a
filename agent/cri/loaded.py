"""What the running daemon really loaded, compared with what it should have."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.cri.daemon import Daemon
from agent.cri.handler import Handler


def not_loaded(
    loaded: Mapping[str, Mapping[str, Any]], handlers: Sequence[Handler], gone: Sequence[str], daemon: Daemon
) -> list[str]:
    """What is different from the wish, a sentence each; empty when all is as it should be.

    Args:
        loaded: the handlers of CRI's verbose status.
        handlers: those that shall be loaded.
        gone: names that shall not be.
        daemon: containerd 1.6 knows no `runtimePath` that counts.
    """
    problems = [f"the daemon still has the handler {name}" for name in gone if name in loaded]
    for handler in handlers:
        table = loaded.get(handler.name)
        if table is None:
            problems.append(f"the daemon has no handler {handler.name}")
            continue
        options = table.get("options")
        wanted: dict[str, tuple[object, object]] = {
            "runtime_type": (handler.runtime_type, table.get("runtimeType")),
            "ConfigPath": (handler.config_path, options.get("ConfigPath") if isinstance(options, dict) else None),
        }
        if daemon.honours_runtime_path:
            wanted["runtime_path"] = (handler.runtime_path, table.get("runtimePath"))
        problems += [
            f"the daemon's handler {handler.name} has {key} {have!r} instead of {want!r}"
            for key, (want, have) in wanted.items()
            if want != have
        ]
    return problems
