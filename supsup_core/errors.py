"""Errors that a user can act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class SupSupError(Exception):
    """The base of all errors that this project raises on purpose. The text of an error is one line for a user."""


class InputError(SupSupError):
    """A config value, a file or a dataset cannot be used. The text says what is wrong and names a remedy."""


class DivergedError(SupSupError):
    """The training loss became NaN or infinite. The text says after how many batches, and what to lower."""


class CorruptError(SupSupError):
    """Stored bytes are not the expected ones: a checksum, a header, a length or a tensor is wrong."""


@contextlib.contextmanager
def prefix_errors(prefix: str, kind: type[InputError] = InputError) -> Iterator[None]:
    """Puts `prefix` before the text of any InputError that the `with` block raises, and raises it as a `kind`."""
    try:
        yield
    except InputError as error:
        raise kind(f"{prefix}{error}") from error
