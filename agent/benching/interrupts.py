"""Signals during a bench: the step under way ends, what was measured is shown, and every sandbox is removed."""

import contextlib
import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WORDS = b"\ninterrupted: removing the sandboxes; once more leaves them to the next bench\n"


class Interrupts:
    """Catches the signals that would end a bench in the middle; a context manager.

    A call to the runtime that is broken off may still make a sandbox afterwards, which nobody would remove. So the
    first signal is only noted. A second Ctrl-C is obeyed at once.

    Attributes:
        caught: the signal's number; 0 while none came.
    """

    def __init__(self) -> None:
        self.caught = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before != signal.SIG_IGN:  # nohup: it is to go on
                self._before[number] = before
                signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.caught:
            self.caught = number
            with contextlib.suppress(OSError):  # the terminal may be what has gone
                os.write(2, _WORDS)
