"""Handles Ctrl-C (SIGINT), SIGTERM, SIGHUP and SIGUSR1 while a sweep runs.

A signal raises KeyboardInterrupt in the main thread, with these exceptions:

- **NNs trains in rounds, and only whole rounds are committed.** The first signal therefore only creates the sweep's
  pause file. The coordinator then ends the current round and commits it, however long the round takes. A second signal
  raises KeyboardInterrupt.
- **A module is being imported.** Python holds a lock for each module while the module loads. An exception from a signal
  handler can leave this lock acquired, and then every thread that imports the module waits forever. The signal is
  therefore sent again every RETRY_SECONDS until no import is in progress.
- **Python is running a callback**, such as `__del__` or the callback of a weak reference. Python then discards the
  exception and calls `sys.unraisablehook`. The hook `_on_unraisable` sends the signal again.

A library can also catch KeyboardInterrupt and raise a different error. `Interrupts.raised` therefore records that
KeyboardInterrupt was raised, and later errors count as part of the interrupt.
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

from orchestrator.base.signals import heeded
from orchestrator.base.wording import say

log = logging.getLogger("supsup")

RETRY_SECONDS = 0.05
"""If a signal arrives while KeyboardInterrupt cannot be raised, a timer repeats the signal after this many seconds."""


class Interrupts:
    """Handles STOP_SIGNALS within a `with` block, which only the main thread may enter.

    `raised`: whether KeyboardInterrupt was raised. `cut_short`: whether an interrupt ended a `contain` block.
    """

    def __init__(self, pause_file: Path, has_rounds: bool) -> None:
        """pause_file: the file whose existence requests a pause. has_rounds: whether any run has scenario NNs."""
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
        for number in heeded():
            self._restore.callback(signal.signal, number, signal.signal(number, self._on_signal))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore.close()

    @property
    def requested(self) -> bool:
        """Whether the sweep was interrupted, or a signal or `supsup drain` requested a pause."""
        return self.raised or self._pause_file.exists()

    @contextlib.contextmanager
    def contain(self) -> Iterator[None]:
        """Suppresses KeyboardInterrupt, and errors that follow it, in a `with` block. An interrupt sets `cut_short`.

        After the block, every signal raises KeyboardInterrupt.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.cut_short = True
        except Exception:
            if not self.raised:
                raise
            log.info("an error was raised after the interrupt", exc_info=True)
            self.cut_short = True
        finally:
            self.end_rounds()

    def end_rounds(self) -> None:
        """Cancels the timers that would send a signal again. From now on, every signal raises KeyboardInterrupt."""
        self._has_rounds = False
        for timer in self._timers:
            timer.cancel()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: requests a pause, raises KeyboardInterrupt, or sends the signal again later."""
        if _is_importing(frame):
            self._send_again(number)
            return
        if not self._has_rounds or self._pause_file.exists():
            self.raised = True
            raise KeyboardInterrupt
        self._pause_file.touch()
        say(
            "supsup: the sweep stops when the current round is committed and the evaluations in progress are done; "
            "press Ctrl-C again to stop at once",
            file=sys.stderr,
        )

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Replaces sys.unraisablehook: sends SIGINT again after a discarded KeyboardInterrupt."""
        if unraisable.exc_type is KeyboardInterrupt:
            self._send_again(signal.SIGINT)
        else:
            sys.__unraisablehook__(unraisable)

    def _send_again(self, number: int) -> None:
        """Starts a timer that sends the signal `number` to this process after RETRY_SECONDS."""
        timer = threading.Timer(RETRY_SECONDS, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)


def _is_importing(frame: FrameType | None) -> bool:
    """Returns whether the call stack that ends in `frame` is importing a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
