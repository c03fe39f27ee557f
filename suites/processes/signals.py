"""What ends this process from outside: SIGTERM, and SIGHUP of a closed terminal, as exceptions."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(BaseException):
    """The process is asked to end, as by Ctrl-C: SIGTERM, or SIGHUP of a closed terminal.

    Attributes:
        signal: which.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.signal = number


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that they clean up as Ctrl-C does.

    One that is ignored, as SIGHUP is under nohup, stays so; a second one does not disturb the
    clean-up.
    """
    previous: dict[int, Any] = {}

    def end(number: int, _frame: FrameType | None) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
