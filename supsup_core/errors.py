"""Errors that a user can act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class SupSupError(Exception):
    """The base class of all errors that this project raises on purpose. The message is one line, written for users."""


class InputError(SupSupError):
    """A config value, a file or a dataset cannot be used. The message says what is wrong and how to correct it."""


class MachineError(SupSupError):
    """A program that a command needs has failed on this machine, although the user's input is right."""


class DivergedError(SupSupError):
    """The training loss became NaN or infinite. The message says after how many batches, and which key to lower."""


class CorruptError(SupSupError):
    """Stored bytes are not the expected ones: a checksum, a header, a length or a tensor is wrong."""


@contextlib.contextmanager
def prefix_errors(prefix: str, kind: type[InputError] = InputError) -> Iterator[None]:
    """Re-raises any InputError of the `with` block as an error of class `kind` whose message begins with `prefix`."""
    try:
        yield
    except InputError as error:
        raise kind(f"{prefix}{error}") from error
