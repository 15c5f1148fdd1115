"""Signals that would end a process, turned into one KeyboardInterrupt at a time that can be borne.

Python raises KeyboardInterrupt anywhere, and a second one within the answer to the first. Within
`interrupts` the first of SIGINT, SIGTERM and SIGHUP raises it, and later ones raise nothing more;
within `held` even the first waits for the end of the block.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that ask a process to end; SIGHUP comes when its terminal is closed."""


class _Inbox:
    """What came, and whether it may be raised now."""

    def __init__(self) -> None:
        self.came = self.raised = False
        self.depth = 0

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        if self.depth == 0 and not self.raised:
            self.raised = True
            raise KeyboardInterrupt


_inboxes: list[_Inbox] = []


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise one KeyboardInterrupt; those that come later are ignored.

    A signal that the process was started to ignore, as by nohup, stays ignored. Only the main
    thread can arrange this; in others, and within another such block, nothing is changed.
    """
    if _inboxes or threading.current_thread() is not threading.main_thread():
        yield
        return
    inbox = _Inbox()
    numbers = [n for n in ENDING if signal.getsignal(n) is not signal.SIG_IGN]
    before = {n: signal.getsignal(n) for n in numbers}
    _inboxes.append(inbox)
    try:
        for n in numbers:
            signal.signal(n, inbox.receive)
        yield
    except Exception as error:
        if inbox.raised:  # see as_interrupt
            raise KeyboardInterrupt from error
        raise
    finally:
        inbox.depth += 1  # nothing is raised while the handlers of before are put back
        for n, handler in before.items():
            signal.signal(n, handler)
        _inboxes.clear()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """A signal that comes within the block is raised at its end; for what must not be cut in two.

    Counts within `interrupts` alone, and in the main thread.
    """
    inbox = _inboxes[0] if _inboxes else _Inbox()
    if threading.current_thread() is not threading.main_thread():
        inbox = _Inbox()
    inbox.depth += 1
    try:
        yield
    finally:
        inbox.depth -= 1
    if inbox.depth == 0 and inbox.came and not inbox.raised:
        inbox.raised = True
        raise KeyboardInterrupt


def check_interrupted() -> None:
    """Raise KeyboardInterrupt again where the one of a signal was swallowed, as in a finaliser."""
    if any(inbox.came and inbox.depth == 0 for inbox in _inboxes):
        raise KeyboardInterrupt


def as_interrupt(error: BaseException) -> BaseException:
    """KeyboardInterrupt where a signal came before the error, else the error.

    What a signal cuts in two may raise something else on its way out: a context manager finds what
    it holds in pieces.
    """
    return KeyboardInterrupt() if any(inbox.raised for inbox in _inboxes) else error
