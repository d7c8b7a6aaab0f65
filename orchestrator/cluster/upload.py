"""Checks the folder that a job uploads before Ray reads the folder: its size, and whether Ray can read all its
files."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from orchestrator.base.library_internals import UploadRule, ray_upload_limit, ray_upload_rules
from orchestrator.base.wording import as_typed
from supsup_core.errors import InputError

DEEPEST = 200
"""The largest allowed nesting depth of folders. Ray reads folders recursively, and Python limits the recursion
depth."""

SEARCH_SECONDS = 5.0
"""If the upload is larger than the limit, the search for its largest folders ends after this many seconds."""

_LARGE_SHARE, _SMALL_SHARE = 0.25, 0.01
"""Shares of the upload limit. A message names the parts of the upload above the first share. `Part.parts` leaves out
the parts below the second share.
"""

_ENTRY_BYTES, _END_BYTES = 76, 22
"""Sizes in bytes in an uncompressed ZIP file: the headers of one entry, without its content and without its name (which
is stored twice), and the end of the file."""


@final
@dataclass
class Part:
    """A file or folder that is uploaded. num_bytes: its size in the ZIP file. parts: the files and folders in a folder,
    without small ones (see _SMALL_SHARE)."""

    path: Path
    num_bytes: int = 0
    parts: list[Part] = field(default_factory=list)

    def innermost(self) -> Part:
        """Returns the innermost part that has nearly all bytes of this part."""
        found = self
        while inner := [part for part in found.parts if part.num_bytes > 0.8 * found.num_bytes]:
            found = inner[0]
        return found

    def largest(self) -> list[Part]:
        """Returns the one to three parts that have most of the bytes, the largest first."""
        innermost = self.innermost()
        parts = sorted(innermost.parts, key=lambda part: part.num_bytes, reverse=True)[:3]
        return [part.innermost() for part in parts if part.num_bytes > 0.1 * innermost.num_bytes] or [innermost]


@dataclass(frozen=True)
class Upload:
    """The files that Ray would upload. unreadable: patterns, in .gitignore syntax, of pipes, devices and circular
    links, which Ray would read forever."""

    whole: Part
    unreadable: tuple[str, ...]


def measure(tree: Path, excludes: Sequence[str]) -> Upload:
    """Returns the part of a folder that Ray would upload. excludes: patterns as in the job's runtime_env.

    The upload leaves out pipes, sockets, devices, and links to a folder that contains the link. Raises InputError if
    the upload is too large, or if Ray could not read a file or folder.
    """
    walk = _Walk(tree, ray_upload_limit())
    whole = walk.part(tree, _rules(tree, excludes), ()) or Part(tree)
    whole.num_bytes += _END_BYTES
    if whole.num_bytes >= walk.limit:
        least = "at least " if walk.is_cut_short else ""
        raise InputError(
            f"{tree}: the upload of this folder would have {least}{_mb(whole)}, but Ray accepts less than "
            f"{walk.limit / 1e6:.1f} MB; its largest parts are {_listed(whole.largest())}; list the files that "
            "the job does not need in .gitignore, and keep datasets in a folder of the cluster"
        )
    return Upload(whole, tuple(walk.unreadable))


def large_parts(upload: Upload) -> str | None:
    """Returns a message if a part of the upload is suspiciously large, or else None."""
    large = [part for part in upload.whole.largest() if part.num_bytes > _LARGE_SHARE * ray_upload_limit()]
    if not large:
        return None
    return (
        f"the job uploads {_mb(upload.whole)}, mostly {_listed(large)}; list the files that the job does not need in "
        ".gitignore"
    )


def _listed(parts: Sequence[Part]) -> str:
    return ", ".join(f"{as_typed(part.path)} ({_mb(part)})" for part in parts)


def _mb(part: Part) -> str:
    return f"{part.num_bytes / 1e6:.1f} MB"


def _rules(folder: Path, excludes: Sequence[str] = ()) -> list[UploadRule]:
    """Returns the rules of a folder (see `ray_upload_rules`). Raises InputError if a rule file cannot be read."""
    try:
        return ray_upload_rules(folder, excludes)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: its .gitignore or .rayignore cannot be read ({error}); correct the file"
        ) from error


@final
class _Walk:
    """Walks through a folder as Ray does, with Ray's rules, but reads no file."""

    def __init__(self, tree: Path, limit: int) -> None:
        self.limit = limit
        self.unreadable: list[str] = []
        self.is_cut_short = False
        self._tree = tree
        self._small = _SMALL_SHARE * limit
        self._num_bytes = 0
        self._deadline: float | None = None

    def part(self, path: Path, rules: Sequence[UploadRule], within: Sequence[tuple[int, int]]) -> Part | None:
        """Returns the `Part` for a file or folder, or None if the file or folder is not uploaded.

        rules: the upload rules of the folders that contain `path`. within: the device and inode of each of these
        folders.
        """
        found = self._found(path)
        if found is None or self._is_over():
            return None
        is_folder = stat.S_ISDIR(found.st_mode)
        if is_folder and path != self._tree:
            rules = [*rules, *_rules(path)]
        if any(rule(path) for rule in rules):
            return None
        itself = (found.st_dev, found.st_ino)
        if itself in within or not (is_folder or stat.S_ISREG(found.st_mode)):
            self.unreadable.append(_pattern(path.relative_to(self._tree)))
            return None
        self._refuse_unreadable(path, is_folder, len(within))
        if not is_folder:
            return self._entry(path, found.st_size)
        try:
            names = os.listdir(path)
        except OSError as error:
            raise self._refusal(path, f"cannot be read ({error.strerror})") from error
        if not names:
            return self._entry(path, 2)  # 2 bytes: the name, which is stored twice, ends in a slash
        inner = [self.part(path / name, rules, [*within, itself]) for name in names]
        parts = [part for part in inner if part is not None]
        return Part(
            path, sum(part.num_bytes for part in parts), [part for part in parts if part.num_bytes > self._small]
        )

    def _found(self, path: Path) -> os.stat_result | None:
        """Returns the status of a file or folder, or None for a dead link. Raises InputError if access is denied."""
        try:
            return path.stat()
        except PermissionError as error:
            raise self._refusal(path, "cannot be read") from error
        except OSError:
            return None

    def _is_over(self) -> bool:
        """Returns whether to end the walk: SEARCH_SECONDS have passed since the upload was found to be too large."""
        if self._num_bytes >= self.limit and self._deadline is None:
            self._deadline = time.monotonic() + SEARCH_SECONDS
        self.is_cut_short |= self._deadline is not None and time.monotonic() > self._deadline
        return self.is_cut_short

    def _refuse_unreadable(self, path: Path, is_folder: bool, depth: int) -> None:
        """Raises InputError if Ray would fail to read a file or folder."""
        if not os.access(path, os.R_OK | (os.X_OK if is_folder else 0)):
            raise self._refusal(path, "cannot be read")
        if depth > DEEPEST:
            raise self._refusal(path, f"is inside more than {DEEPEST} folders")
        try:
            str(path.relative_to(self._tree)).encode()
        except UnicodeEncodeError as error:
            raise self._refusal(path, "has a name that is not in UTF-8") from error

    def _refusal(self, path: Path, why: str) -> InputError:
        return InputError(
            f"{path}: {why}, so the folder {self._tree} cannot be uploaded; add {path.name} to .gitignore"
        )

    def _entry(self, path: Path, num_bytes: int) -> Part:
        """Returns the `Part` for one entry of the ZIP file, which stores the entry's name twice."""
        size = _ENTRY_BYTES + 2 * len(os.fsencode(path.relative_to(self._tree))) + num_bytes
        self._num_bytes += size
        return Part(path, size)


def _pattern(path: Path) -> str:
    """Returns the pattern, in .gitignore syntax, that matches only this path."""
    return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path.as_posix())
