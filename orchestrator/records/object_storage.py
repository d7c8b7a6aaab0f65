"""Reads and writes files in a folder given by URL (`s3://bucket/folder`, `gs://…`, `file:///…`), with retries.

Writes are atomic: one request to an object store, or an atomic rename on a file system. Requests that fail with a
temporary error are retried with exponential backoff, until a time limit (`patience`) is reached.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from orchestrator.base.files import is_partial, write_atomically
from supsup_core.errors import InputError, SupSupError

T = TypeVar("T")

log = logging.getLogger("supsup")

PATIENCE_SECONDS = 600.0
"""The longest time, in seconds, for which a running sweep retries a request that fails with a temporary error."""

ASKING_SECONDS = 30.0
"""The longest time, in seconds, for which a request is retried while a user waits for the command to finish."""

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 15.0
"""The wait before the first retry, and the longest wait before a retry, in seconds. The wait doubles after each
retry."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"use_listings_cache": False, "config_kwargs": {"connect_timeout": 10, "read_timeout": 60}},
    "gs": {"use_listings_cache": False},
}
"""Options of fsspec by URL scheme. Listings are not cached, because other machines write to the same store."""

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}

_REFUSED = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "UnauthorizedSSOTokenError")
"""Names of botocore's permanent errors, for which a retry is useless."""


class StorageError(SupSupError):
    """The storage refused a request, or did not answer within the time limit (`patience`)."""


def check_url(url: str) -> None:
    """Raises InputError if `url` is not the URL of a storage folder, or if it contains a user name or a password."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("file", *_PACKAGES) and bool(parts.path.strip("/") or parts.netloc)
        secret = parts.username or parts.password
    except ValueError:
        sound, secret = False, None
    if not sound or (parts.scheme == "file") == bool(parts.netloc) or parts.query or parts.fragment:
        raise InputError(
            f"storage: must be the URL of a folder, such as s3://bucket/folder, gs://… or file:///folder, not {url!r}"
        )
    if secret:
        raise InputError(
            "storage: the URL must contain no user or password, because it is written to files; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the variables that the store's own client reads"
        )
    if any(part in (".", "..") for part in parts.path.split("/")):
        raise InputError(f"storage: {url!r} contains '.' or '..'; set the full path of the folder")


class StoredFile(NamedTuple):
    """A file in a storage. `written`: the Unix time of its last write, or None if the store does not report it."""

    num_bytes: int
    written: float | None


class Storage:
    """One folder in an object store or file system. Several processes and machines may use the folder at once."""

    def __init__(self, url: str, patience: float = PATIENCE_SECONDS) -> None:
        """patience: the longest time, in seconds, for which a request that fails with a temporary error is retried."""
        check_url(url)
        self.url = url.rstrip("/")
        self._patience = patience

    def __truediv__(self, name: str) -> Storage:
        """Returns the Storage of the subfolder `name`."""
        return Storage(f"{self.url}/{name}", self._patience)

    @cached_property
    def _is_local(self) -> bool:
        return self.url.startswith("file:")

    @cached_property
    def _folder(self) -> str:
        """The path of the folder, in the form that fsspec expects for this kind of store."""
        scheme, _, rest = self.url.partition("://")
        return rest if scheme != "file" else rest or "/"

    @cached_property
    def _system(self) -> Any:
        import fsspec

        scheme = urlsplit(self.url).scheme
        try:
            return fsspec.filesystem(scheme, **_OPTIONS.get(scheme, {}))
        except ImportError as error:
            raise InputError(
                f"storage: {scheme}:// needs the package {_PACKAGES[scheme]}; "
                f"install it with: pip install 'supsup[{scheme}]'"
            ) from error

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises FileNotFoundError if the file is missing, and StorageError if reading fails.
        """
        content: bytes = self._patiently(f"reading {name}", lambda: self._system.cat_file(self._at(name)))
        return content

    def write(self, name: str, content: bytes) -> None:
        """Writes or replaces a file. On return, the file is durable. Raises StorageError if writing fails."""

        def once() -> None:
            if self._is_local:
                path = Path(self._at(name))
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)
            else:
                self._system.pipe_file(self._at(name), content)

        try:
            self._patiently(f"writing {name}", once)
        except FileNotFoundError as error:
            raise StorageError(
                f"storage: {self.url}: the bucket does not exist ({error}); create the bucket"
            ) from error

    def has(self, name: str) -> bool:
        """Returns whether a file exists."""
        try:
            found = self._patiently(f"looking for {name}", lambda: self._system.info(self._at(name)))
        except FileNotFoundError:
            return False
        return bool(found["type"] == "file")

    def delete(self, name: str) -> None:
        """Deletes a file, if it exists."""

        def once() -> None:
            self._system.rm_file(self._at(name))

        try:
            self._patiently(f"deleting {name}", once)
        except FileNotFoundError:
            return

    def move(self, name: str, target: str) -> None:
        """Moves a file to another name in this folder. Does nothing if the file does not exist.

        The file is copied before it is deleted, so it is never lost.
        """

        def once() -> None:
            if self._is_local:
                Path(self._at(target)).parent.mkdir(parents=True, exist_ok=True)
            self._system.cp_file(self._at(name), self._at(target))

        try:
            self._patiently(f"moving {name}", once)
        except FileNotFoundError:
            return
        self.delete(name)

    def files(self, below: str = "") -> dict[str, StoredFile]:
        """Returns all files, by name relative to this folder. below: the subfolder to list; "" means this folder."""
        folder = self._at(below) if below else self._folder
        try:
            found = self._patiently("listing", lambda: self._system.find(folder, detail=True))
        except FileNotFoundError:
            return {}
        start = len(self._folder.strip("/")) + 1
        return {
            path.strip("/")[start:]: StoredFile(int(node["size"]), _written(node))
            for path, node in found.items()
            if node["type"] == "file" and not is_partial(Path(path))
        }

    def check(self) -> None:
        """Writes a small file as a test. Raises InputError if the storage cannot be written."""
        probe = Storage(self.url, ASKING_SECONDS)
        try:
            probe.write(_PROBE, b"supsup keeps its files here\n")
        except StorageError as error:
            raise InputError(str(error)) from error

    def _at(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    def _patiently(self, doing: str, call: Callable[[], T]) -> T:
        """Calls `call` until it succeeds or the time limit is reached, and returns its result.

        doing: the request in words, for messages. Raises StorageError if the store refuses the request or does not
        answer in time. A FileNotFoundError from `call` is raised without a retry.
        """
        deadline = time.monotonic() + self._patience
        told, wait = False, FIRST_WAIT_SECONDS
        while True:
            try:
                found = call()
            except FileNotFoundError:
                raise
            except Exception as error:  # each store's client raises its own types of errors
                why = f"{type(error).__name__}: {(str(error).splitlines() or ['?'])[0]}"
                if isinstance(error, (PermissionError, InputError)) or type(error).__name__ in _REFUSED:
                    raise StorageError(
                        f"storage: {self.url}: {doing} was refused ({why}); check the URL and your credentials"
                    ) from error
                if time.monotonic() + wait > deadline:
                    raise StorageError(
                        f"storage: {self.url}: {doing} failed for {self._patience:.0f} s ({why}); "
                        "when the storage works again, run the same command again"
                    ) from error
                if not told:
                    log.warning("storage: %s: %s failed (%s); retrying", self.url, doing, why)
                told = True
                time.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            else:
                if told:
                    log.warning("storage: %s works again", self.url)
                return found


_PROBE = "supsup.txt"
"""The name of the test file that `Storage.check` writes."""


def _written(node: dict[str, Any]) -> float | None:
    """Returns the Unix time at which a file was written, or None if unknown. node: fsspec's description of the file."""
    for key in ("mtime", "LastModified", "updated"):
        value = node.get(key)
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
    return None
