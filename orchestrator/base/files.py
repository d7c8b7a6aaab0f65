"""Writes files atomically and durably: after a crash, a file has either all its new content or all its old content.

Also finds the working folder, the home folder and a private folder of this process.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from supsup_core.errors import InputError, MachineError


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` to `path` atomically. After a crash, the file holds the whole old or the whole new content.

    The file and its folder entry are synced to disk (fsync) before this function returns.
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
    """Returns whether `path` is named like a temporary file of `write_atomically`."""
    return re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) is not None


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises MachineError if the `with` block cannot read a file that exists, for example without permission."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be read ({error.strerror or error}); correct the cause, then run the command again"
        ) from error


def folder_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder, or none if the folder does not exist.

    Raises MachineError if the folder cannot be read.
    """
    try:
        with readable(folder), os.scandir(folder) as found:
            return list(found)
    except FileNotFoundError:
        return []


def replace_durably(temporary: Path, path: Path) -> None:
    """Renames `temporary` to `path`, and syncs the folder to disk. The caller must have synced the file's content."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def working_folder() -> Path | None:
    """Returns the working folder of this process, or None if it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def is_utf8(path: Path | str) -> bool:
    """Returns whether a path is UTF-8. Linux allows any bytes in a name, but MLflow and Ray need text."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def private_folder(remedy: str) -> Path:
    """Returns the folder `/tmp/supsup-UID`, which only this user can read, and creates it if it does not exist.

    remedy: the end of the error message, which says what the user can do instead. Raises InputError if the folder
    belongs to another user.
    """
    own = Path("/tmp") / f"supsup-{os.getuid()}"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise InputError(f"{own}: cannot be created ({error.strerror}); {remedy}") from error
    if own.is_symlink() or own.stat().st_uid != os.getuid() or not os.access(own, os.W_OK | os.X_OK):
        raise InputError(f"{own}: is a symbolic link, belongs to another user or is not writable; {remedy}")
    own.chmod(0o700)
    return own


def ensure_home() -> None:
    """Sets HOME to a private folder if this user has no home folder, for example a user without a name in a container.

    MLflow, Ray and other libraries need a home folder. Raises InputError as `private_folder` does.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(private_folder("set HOME to a folder that you own"))
