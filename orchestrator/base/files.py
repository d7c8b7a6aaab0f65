"""Writing files so that they are whole or absent."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`: after a crash it is the old content or the new, never a part.

    The file and its folder entry are on disk when this returns.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace_durably(Path(temporary), path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def is_partial(path: Path) -> bool:
    """Whether it has a name that `write_atomically` gives a file until it is whole."""
    return re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) is not None


def replace_durably(temporary: Path, path: Path) -> None:
    """Give a file, whose content is on disk, its final name; the name is on disk when this returns."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
