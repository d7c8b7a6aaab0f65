"""The exit codes of the command line."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command reports to the shell."""

    DONE = 0
    FAILED = 1
    """A run failed, or something is damaged."""
    BAD_INPUT = 2
    INTERRUPTED = 130
    """Stopped by Ctrl-C or SIGTERM; finished work is committed."""
