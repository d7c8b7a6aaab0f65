"""A folder by URL (`s3://bucket/folder`, `gs://…`, `file:///…`): whole files written and read, with patience.

What is written is there whole or not at all: one request to an object store, and a file with an atomic rename on a
file system. A store that does not answer is asked again, less and less often, until patience ends.
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
"""How long an object store may be away while work goes on."""

ASKING_SECONDS = 30.0
"""How long one may be when a person waits for the answer."""

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 15.0
"""How long to wait before the first retry, and at most: the wait doubles with each retry."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"use_listings_cache": False, "config_kwargs": {"connect_timeout": 10, "read_timeout": 60}},
    "gs": {"use_listings_cache": False},
}
"""What fsspec is told of each kind of store: that others write there too."""

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}

_REFUSED = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "UnauthorizedSSOTokenError")
"""Errors of botocore that waiting does not mend."""


class StorageError(SupSupError):
    """The storage refused, or could not be reached for as long as there was patience."""


def check_url(url: str) -> None:
    """InputError unless it is a URL that a Storage can be made of, without a password in it."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("file", *_PACKAGES) and bool(parts.path.strip("/") or parts.netloc)
        secret = parts.username or parts.password
    except ValueError:
        sound, secret = False, None
    if not sound or (parts.scheme == "file") == bool(parts.netloc) or parts.query or parts.fragment:
        raise InputError(f"storage: a folder such as s3://bucket/folder, gs://… or file:///folder, not {url!r}")
    if secret:
        raise InputError(
            "storage: no user or password in the URL, which is written to files; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what the store's own client reads"
        )
    if any(part in (".", "..") for part in parts.path.split("/")):
        raise InputError(f"storage: write the folder of {url!r} out, without . and ..")


class StoredFile(NamedTuple):
    """A file in a storage: its size, and the Unix time at which it was written, where the store knows it."""

    num_bytes: int
    written: float | None


class Storage:
    """One folder. Several processes and machines may use it at once."""

    def __init__(self, url: str, patience: float = PATIENCE_SECONDS) -> None:
        """patience: seconds for which a store that does not answer is asked again."""
        check_url(url)
        self.url = url.rstrip("/")
        self._patience = patience

    def __truediv__(self, name: str) -> Storage:
        """A folder within this one."""
        return Storage(f"{self.url}/{name}", self._patience)

    @cached_property
    def _is_local(self) -> bool:
        return self.url.startswith("file:")

    @cached_property
    def _folder(self) -> str:
        """The folder as its file system names it."""
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
                f"storage: {scheme}:// takes the package {_PACKAGES[scheme]}; pip install 'supsup[{scheme}]'"
            ) from error

    def read(self, name: str) -> bytes:
        """The content of a file; FileNotFoundError when there is none."""
        content: bytes = self._patiently(f"reading {name}", lambda: self._system.cat_file(self._at(name)))
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in the place of the one there is, if any; it is safe when this returns."""

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
            raise StorageError(f"storage: {self.url}: there is no such bucket ({error}); create it") from error

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        try:
            found = self._patiently(f"looking for {name}", lambda: self._system.info(self._at(name)))
        except FileNotFoundError:
            return False
        return bool(found["type"] == "file")

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""

        def once() -> None:
            self._system.rm_file(self._at(name))

        try:
            self._patiently(f"deleting {name}", once)
        except FileNotFoundError:
            return

    def files(self, below: str = "") -> dict[str, StoredFile]:
        """The files there are, by their names relative to this folder. below: only those of a folder within."""
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
        """InputError unless it can be listed and written, which a small file tries."""
        probe = Storage(self.url, ASKING_SECONDS)
        try:
            probe.write(_PROBE, b"supsup keeps its files here\n")
        except StorageError as error:
            raise InputError(str(error)) from error

    def _at(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    def _patiently(self, doing: str, call: Callable[[], T]) -> T:
        """`call()`, again and again while the store is away."""
        deadline = time.monotonic() + self._patience
        told, wait = False, FIRST_WAIT_SECONDS
        while True:
            try:
                found = call()
            except FileNotFoundError:
                raise
            except Exception as error:  # each store's client has errors of its own
                why = f"{type(error).__name__}: {(str(error).splitlines() or ['?'])[0]}"
                if isinstance(error, (PermissionError, InputError)) or type(error).__name__ in _REFUSED:
                    raise StorageError(
                        f"storage: {self.url}: {doing} was refused ({why}); look at its address and credentials"
                    ) from error
                if time.monotonic() + wait > deadline:
                    raise StorageError(
                        f"storage: {self.url}: {doing} failed for {self._patience:.0f} s ({why}); "
                        "once it answers again, resume"
                    ) from error
                if not told:
                    log.warning("storage: %s does not answer; asking again: %s (%s)", self.url, doing, why)
                told = True
                time.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            else:
                if told:
                    log.warning("storage: %s answers again", self.url)
                return found


_PROBE = "supsup.txt"
"""The file that is written to see whether a storage can be."""


def _written(node: dict[str, Any]) -> float | None:
    """When a file was written, as its file system tells it."""
    for key in ("mtime", "LastModified", "updated"):
        value = node.get(key)
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
    return None
