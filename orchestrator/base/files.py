"""Writing files so that they are whole or absent, and folders that one process owns at a time."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from supsup_core.errors import InputError


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


def as_typed(path: Path) -> str:
    """A path as a person here would type it."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # deleted under this process, as the folder of a job that is stopped
        return str(path)
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def command(verb: str, folder: Path) -> str:
    """The command on a sweep, by its folder, as it can be typed in a shell here."""
    return f"supsup {verb} {folder.name} output={in_shell(folder.parents[1])}"


def in_shell(path: Path) -> str:
    """A path as a person here would type it in a shell."""
    return shlex.quote(as_typed(path))
