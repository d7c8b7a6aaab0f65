"""The exit codes of the command line."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command."""

    DONE = 0
    FAILED = 1
    """A run failed, a file is damaged, or a program that the command needs failed. Data that cannot be written to
    MLflow, to the report or to the storage also gives this code."""
    BAD_INPUT = 2
    INTERRUPTED = 130
    """The command was stopped by Ctrl-C, SIGTERM or `supsup drain`; finished work is committed."""
