"""Reads published dataset files. Missing files are downloaded, and every file is verified by its checksum."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supsup_core.errors import CorruptError, InputError, SupSupError
from supsup_core.input_files import gunzip, read_file


def user_cache() -> Path:
    """The user's cache folder. Datasets are in the cache folder unless `data=DIR` or SUPSUP_DATA names another folder.

    Raises InputError if the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supsup"
    except RuntimeError:
        raise InputError("HOME: this user has no home folder; set HOME to a folder for cached files") from None


@dataclass(frozen=True)
class Published:
    """The files of one dataset.

    `folder`: the folder of the files, relative to the data root. `md5`: the published MD5 sum of each file, by file
    name. `most_bytes`: the largest size of each file, by file name; for a .gz file, the size of the decompressed
    content. `mirrors`: the URLs of folders, to which a file name is appended. `unpacks`: True if the MD5 sums belong to
    the decompressed contents, False if they belong to the files themselves.
    """

    folder: str
    md5: Mapping[str, str]
    most_bytes: Mapping[str, int]
    mirrors: tuple[str, ...]
    unpacks: bool

    def checksum(self) -> str:
        """A SHA-256 over the published MD5 sums, which identifies the bytes of the dataset."""
        return hashlib.sha256("".join(self.md5.values()).encode()).hexdigest()

    def contents(self, root: Path | None) -> dict[str, bytes]:
        """The verified content of every file, by file name. Files that end in .gz are decompressed, except .tar.gz.

        The files are read from `folder` below `root`. If `root` is None, the files are read from the user's cache, and
        missing files are downloaded first. A file is read and decompressed only up to its published size. Raises
        InputError if files are missing and cannot be downloaded, are too large, or are no regular files. Raises
        CorruptError if the bytes are not the published ones.
        """
        home = (root or user_cache()) / self.folder
        for name in self.md5:
            if os.path.lexists(home / name):
                continue
            if root is not None:
                raise InputError(
                    f"{home / name}: is missing; put {', '.join(self.md5)} into {home}, or set data=DIR or SUPSUP_DATA "
                    f"to a folder that has these files in {self.folder}/"
                )
            self._download(home, name)
        return {name: self._read(home / name) for name in self.md5}

    def _read(self, path: Path) -> bytes:
        remedy = "delete the file and run the command again, or replace the file with an intact copy"
        content = read_file(path, self._most_read(path.name))
        if not self.unpacks:
            self._verify(path, content, remedy)
        if not path.name.endswith(".gz") or path.name.endswith(".tar.gz"):
            return content
        try:
            unpacked = gunzip(content, self.most_bytes[path.name])
        except CorruptError as error:
            raise CorruptError(f"{path}: {error}; {remedy}") from error
        if self.unpacks:
            self._verify(path, unpacked, remedy)
        return unpacked

    def _most_read(self, name: str) -> int:
        """The largest number of bytes to read from a file. gzip can make a file at most 1 % larger than its content."""
        return self.most_bytes[name] + self.most_bytes[name] // 100 + 4096

    def _verify(self, path: Path, content: bytes, remedy: str) -> None:
        found, wanted = hashlib.md5(content, usedforsecurity=False).hexdigest(), self.md5[path.name]
        if found != wanted:
            raise CorruptError(f"{path}: has the wrong MD5 sum ({found}; the published sum is {wanted}); {remedy}")

    def _download(self, home: Path, name: str) -> None:
        """Download a file from the first mirror with an intact copy.

        The file is moved into `home` after it is verified.
        """
        home.mkdir(parents=True, exist_ok=True)
        partial = home / f".{name}.{os.getpid()}" / name
        partial.parent.mkdir(exist_ok=True)
        failures = []
        try:
            for mirror in self.mirrors:
                try:
                    with urllib.request.urlopen(mirror + name, timeout=30) as answer:
                        partial.write_bytes(answer.read(self._most_read(name) + 1))
                    self._read(partial)
                except (OSError, http.client.HTTPException, SupSupError) as error:
                    failures.append(str(error))
                    continue
                os.replace(partial, home / name)
                return
        finally:
            partial.unlink(missing_ok=True)
            partial.parent.rmdir()
        raise InputError(
            f"{home / name}: is missing, and no mirror could deliver it ({failures[-1]}); "
            f"put {', '.join(self.md5)} into {home}, or set data=DIR or SUPSUP_DATA "
            f"to a folder that has these files in {self.folder}/"
        )
