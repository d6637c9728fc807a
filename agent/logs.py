"""Log lines: for people on a terminal, as JSON in a pod. A run in which nothing happens logs nothing."""

import functools
import os
import sys
from typing import Any


def in_pod() -> bool:
    """Whether this process runs in a pod: the kubelet gives every container this variable."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


@functools.cache
def _logger() -> Any:
    import structlog  # noqa: PLC0415 - a tenth of a second that a run which changes nothing need not spend

    if in_pod():
        renderers: list[Any] = [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        renderers = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, pad_level=False),
        ]
    structlog.configure(
        processors=[structlog.processors.add_log_level, *renderers],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    return structlog.get_logger()


def info(event: str, **fields: object) -> None:
    """Something happened."""
    _logger().info(event, **fields)


def warning(event: str, **fields: object) -> None:
    """Something happened that a person should know of."""
    _logger().warning(event, **fields)
