"""Locks folders, so that at most one process at a time writes to a folder."""

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
    """Holds the lock of `folder` during the `with` block. The folder is created if it does not exist.

    what: what runs in the folder, such as "sweep", for error messages. The operating system releases the lock when the
    process ends, even after a crash. Raises InputError if another process holds the lock, or if the folder cannot be
    written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output: {folder} cannot be written ({error.strerror}); set output=DIR to a folder that you can write"
        ) from error
    lock = FileLock(folder / "lock")
    holder = folder / "holder"
    try:
        lock.acquire(timeout=0.5)  # `holder_of` in another process may hold the lock briefly
        holder.write_text(f"{os.getpid()} {socket.gethostname()}")
    except Timeout:
        follow = f", or see the progress with `{command('status', folder)}`" if what == "sweep" else ""
        raise InputError(
            f"{folder.name}: process {holder_of(folder) or '?'} is running this {what}; wait until that process has "
            f"ended{follow}"
        ) from None
    except OSError as error:
        raise InputError(
            f"output: {folder} cannot be written ({error.strerror}); set output=DIR to another folder"
        ) from error
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def holder_of(folder: Path) -> int | None:
    """Returns the id of the process that holds the lock of `folder`.

    Returns None if no process holds the lock, or if this user has no permission to test the lock. Returns -1 if a
    process holds the lock but its id cannot be read.
    """
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
        return None  # the folder is read-only for this user, so the lock cannot be tested
    lock.release()
    return None


def host_of(folder: Path) -> str | None:
    """Returns the host name of the process that holds the lock of `folder`, or None if the name cannot be read."""
    try:
        return (folder / "holder").read_text().split()[1]
    except (OSError, IndexError):
        return None
