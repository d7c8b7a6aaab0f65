"""What Ctrl-C (SIGINT) and SIGTERM do while a sweep runs. All handling of signals is in this module.

A signal raises KeyboardInterrupt in the main thread, with these exceptions:

- **NNs trains in rounds, and only whole rounds are committed.** The first signal requests a pause: it creates the
  sweep's pause file, the coordinator ends the round and commits it. A second signal, or PAUSE_SECONDS, interrupts.
- **A module is being imported.** Python's import system holds a lock for each module while it loads. An exception that
  a signal handler raises there can leave the lock taken, and then every thread that imports the module waits for ever.
  So the signal is sent again after RETRY_SECONDS, until no import is under way.
- **The exception is raised inside a callback** of Python's own, such as `__del__` or that of a weak reference. Python
  discards it and calls `sys.unraisablehook`. Our hook sends the signal again.

A library can also catch KeyboardInterrupt and raise an error of its own instead. So `Interrupts.raised` records that
KeyboardInterrupt was raised, and errors that follow count as part of the interrupt.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

log = logging.getLogger("supsup")

PAUSE_SECONDS = 60.0
"""How long a round may take to end after a pause was requested. Then the sweep is interrupted."""

RETRY_SECONDS = 0.05
"""When a signal is sent again that came at a moment at which KeyboardInterrupt cannot be raised."""


class Interrupts:
    """Handles SIGINT and SIGTERM within a `with` block. Only the main thread may enter one.

    `raised`: whether KeyboardInterrupt was raised. `cut_short`: whether a `contain` block was ended by an interrupt.
    """

    def __init__(self, pause_file: Path, has_rounds: bool) -> None:
        """pause_file: requests a pause while it exists. has_rounds: whether any run of the sweep is NNs."""
        self._pause_file = pause_file
        self._has_rounds = has_rounds
        self._timers: list[threading.Timer] = []
        self._restore = contextlib.ExitStack()
        self.raised = False
        self.cut_short = False

    def __enter__(self) -> Interrupts:
        self._restore.callback(self.end_rounds)
        self._restore.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = self._on_unraisable
        for number in (signal.SIGINT, signal.SIGTERM):
            self._restore.callback(signal.signal, number, signal.signal(number, self._on_signal))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore.close()

    @property
    def requested(self) -> bool:
        """Whether the sweep was interrupted, or a pause was requested, here or by `supsup drain`."""
        return self.raised or self._pause_file.exists()

    @contextlib.contextmanager
    def contain(self) -> Iterator[None]:
        """Run the training. An interrupt ends the block and sets `cut_short`; after it, there are no rounds left."""
        try:
            yield
        except KeyboardInterrupt:
            self.cut_short = True
        except Exception:
            if not self.raised:
                raise
            log.info("an error that followed the interrupt", exc_info=True)
            self.cut_short = True
        finally:
            self.end_rounds()

    def end_rounds(self) -> None:
        """Cancel the signals that are still to be sent. From now on no pause is requested: a signal interrupts."""
        self._has_rounds = False
        for timer in self._timers:
            timer.cancel()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            self._send_again(number, RETRY_SECONDS)
            return
        if not self._has_rounds or self._pause_file.exists():
            self.raised = True
            raise KeyboardInterrupt
        self._pause_file.touch()
        print(
            "supsup: pausing at the end of the round, which is then committed; press Ctrl-C again to stop now",
            file=sys.stderr,
        )
        self._send_again(number, PAUSE_SECONDS)

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """In place of sys.unraisablehook."""
        if unraisable.exc_type is KeyboardInterrupt:
            self._send_again(signal.SIGINT, RETRY_SECONDS)
        else:
            sys.__unraisablehook__(unraisable)

    def _send_again(self, number: int, seconds: float) -> None:
        """Send this process a signal after some seconds."""
        timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a frame is within the loading of a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
