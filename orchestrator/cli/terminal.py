"""Makes standard output and standard error accept every character, and lets a sweep outlive its terminal or log."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from orchestrator.base.wording import say

log = logging.getLogger("supsup")

_PLAIN = {"–": "-", "−": "-", "…": "...", "·": "|", "±": "+-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "²": "^2"}
"""The ASCII texts that replace characters of this program's messages if the terminal's encoding lacks them."""


class LostStreamError(OSError):
    """Standard output cannot be written: the reader of a pipe ended, or a disk is full."""


def prepare_streams() -> None:
    """Prepares standard output and standard error for the whole process.

    Characters that the encoding of a stream lacks, such as dashes and a user's names, are printed in ASCII. If standard
    output cannot be written, printing raises LostStreamError, so that callers can tell this error from errors of other
    files.
    """
    codecs.register_error("supsup", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="supsup")
    if not isinstance(sys.stdout, _Watched):
        sys.stdout = _Watched(sys.stdout)


class _Console(logging.Handler):
    """Prints warnings and errors to the current `sys.stderr`, which a `with` block such as `lossy_streams` may
    replace."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"supsup: {record.getMessage()}", file=sys.stderr)


def print_warnings() -> None:
    """Prints this project's warnings and errors to standard error, each as one line. A second call does nothing."""
    if not any(isinstance(handler, _Console) for handler in log.handlers):
        log.addHandler(_Console(logging.WARNING))


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Returns ASCII text for characters that cannot be encoded, and where to continue (see codecs.register_error)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one, one.encode("ascii", "backslashreplace").decode()) for one in characters), error.end


@contextlib.contextmanager
def lossy_streams() -> Iterator[None]:
    """Within the `with` block, drops what is printed to a stream that cannot be written any more.

    Writing to a stream fails if the reader of a pipe ends, if a terminal is closed, or if a log is on a full disk. The
    first failure of a stream is logged as a warning.
    """
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Lossy(stream, name) for stream, name in zip(streams, ("output", "error"), strict=True))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams


class _Watched:
    """A text stream that raises LostStreamError if it cannot be written.

    Other attributes are those of the wrapped stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text. Returns the number of its characters."""
        try:
            return self._stream.write(text)
        except OSError as error:
            raise LostStreamError(error.errno, error.strerror) from error

    def flush(self) -> None:
        """Writes the buffered text."""
        try:
            self._stream.flush()
        except OSError as error:
            raise LostStreamError(error.errno, error.strerror) from error

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class _Lossy:
    """A text stream that drops its text once writing has failed. Other attributes are those of the wrapped stream."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._is_lost = False

    def write(self, text: str) -> int:
        """Writes a text, if this is possible. Returns the number of its characters."""
        if not self._is_lost:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Writes the buffered text, if this is possible."""
        if not self._is_lost:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self._is_lost = True
        discard(self._stream)
        log.warning(
            "standard %s cannot be written any more (%s); the sweep continues, and its messages are in supsup.log",
            self._name,
            error.strerror or error,
        )

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def discard(stream: TextIO) -> None:
    """Redirects a stream to /dev/null, so that all further text and the text in its buffer are dropped."""
    with contextlib.suppress(OSError, ValueError):  # the stream may have no file descriptor
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
