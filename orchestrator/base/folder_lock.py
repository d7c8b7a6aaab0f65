"""Locks folders, so that at most one process at a time writes to a folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.base.wording import command
from supsup_core.errors import InputError


@dataclass(frozen=True)
class LockKind:
    """The words that error messages use for one kind of locked folder.

    `doing`: what the process that holds the lock does, such as `running this sweep`. `where`: the argument of the
    command line that names the folder. `remedy`: tells the user what to do if the folder cannot be written. `advice`:
    tells the user what to do if another process holds the lock. `follow`: the verb that shows the progress; if given,
    its command is added to the advice.
    """

    doing: str
    where: str
    remedy: str
    advice: str
    follow: str | None = None


SWEEP = LockKind(
    "running this sweep", "output", "set output=DIR to a writable folder",
    "wait until that process has ended, or see the progress with", "status",
)  # fmt: skip
SERVER = LockKind(
    "running this server", "FOLDER", "run `supsup server` with another folder",
    "wait until that process has ended, or run `supsup server` with another folder",
)  # fmt: skip
FORK = LockKind(
    "writing this fork", "output", "correct the cause, then run the command again",
    "that process also trains the fork, and `supsup status` shows the progress",
)  # fmt: skip


@contextlib.contextmanager
def owned(folder: Path, kind: LockKind = SWEEP, name: str | None = None) -> Iterator[None]:
    """Holds the lock of `folder` during the `with` block. The folder is created if it does not exist.

    name: what messages call the folder; by default, the folder's own name. The operating system releases the lock
    when the process ends, even after a crash. Raises InputError if another process holds the lock, or if the folder
    cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, kind, error) from error
    lock = FileLock(folder / "lock")
    holder = folder / "holder"
    try:
        lock.acquire(timeout=0.5)  # `holder_of` in another process may hold the lock briefly
        holder.write_text(f"{os.getpid()} {socket.gethostname()}")
    except Timeout:
        follow = f" `{command(kind.follow, folder)}`" if kind.follow else ""
        raise InputError(
            f"{name or folder.name}: {holder_in_words(folder)} is {kind.doing}; {kind.advice}{follow}"
        ) from None
    except OSError as error:
        raise _unwritable(folder, kind, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the disk may fail; without the lock, the file is ignored
            holder.unlink(missing_ok=True)
        lock.release()


def _unwritable(folder: Path, kind: LockKind, error: OSError) -> InputError:
    return InputError(f"{kind.where}: {folder} cannot be written ({error.strerror}); {kind.remedy}")


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


def holder_in_words(folder: Path) -> str:
    """Describes the process that holds the lock of `folder`: `process ID`, or `process ID on HOST` if on another host.

    Returns `another process` if the id cannot be read, for example because that process has just started or ended.
    """
    process, host = holder_of(folder), host_of(folder)
    if process is None or process <= 0:
        return "another process"
    return f"process {process}" if host in (None, socket.gethostname()) else f"process {process} on {host}"
