"""Folders that one process owns at a time."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.base.wording import command
from supsup_core.errors import InputError


@contextlib.contextmanager
def owned(folder: Path, what: str = "sweep") -> Iterator[None]:
    """Own `folder` (a sweep's, unless `what` says another's) for the time of the block; InputError naming the process
    that does.

    The lock is the operating system's, so it ends with the process, however that ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output: {folder} cannot be written ({error.strerror}); set output=DIR to a folder of yours"
        ) from error
    lock = FileLock(folder / "lock")
    holder = folder / "holder"
    try:
        lock.acquire(timeout=0.5)  # a status that looks at this moment holds it for an instant
        holder.write_text(f"{os.getpid()} {socket.gethostname()}")
    except Timeout:
        follow = f", or follow it with `{command('status', folder)}`" if what == "sweep" else ""
        raise InputError(
            f"{folder.name}: process {holder_of(folder) or '?'} is running this {what}; wait for it{follow}"
        ) from None
    except OSError as error:
        raise InputError(f"output: {folder} cannot be written ({error.strerror}); set output=DIR") from error
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def holder_of(folder: Path) -> int | None:
    """The process that owns `folder`, or None when nobody does; -1 when it is not known which."""
    lock = FileLock(folder / "lock")
    if not (folder / "lock").exists():
        return None
    try:
        lock.acquire(blocking=False)
    except Timeout:
        try:
            return int((folder / "holder").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return -1
    except OSError:
        return None  # an output one may only read: nobody can be told
    lock.release()
    return None


def host_of(folder: Path) -> str | None:
    """The machine whose process owns `folder`, where that is known."""
    try:
        return (folder / "holder").read_text().split()[1]
    except (OSError, IndexError):
        return None
