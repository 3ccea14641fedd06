"""Ctrl-C, and SIGTERM, which a scheduler sends when it wants its machine back and which is treated alike.

A signal that is ignored when the program starts stays ignored, as SIGINT is in a script's background jobs: a Ctrl-C
there is meant for another program. SIGTERM stops such a run, too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def stop_at_sigterm() -> None:
    """Let SIGTERM raise KeyboardInterrupt from now on."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def quitting() -> Iterator[None]:
    """End the program at once at Ctrl-C: while modules are imported there is nothing to save, or to explain."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end, so that no checkpoint is taken between an update and the count of it."""
    pressed: list[int] = []
    heard = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    usual = {number: signal.signal(number, lambda *_: pressed.append(1)) for number in heard}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    if pressed:
        raise KeyboardInterrupt
