"""The check of the folder that a job uploads. Ray's own package of the folder is the measure."""

from __future__ import annotations

import os
import random
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from orchestrator.base.library_internals import ray_package_hash
from orchestrator.cluster import upload
from orchestrator.cluster.ray_jobs import EXCLUDES
from orchestrator.cluster.upload import Part, large_parts, measure
from supsup_core.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    found = tmp_path / "tree"
    found.mkdir()
    return found


def write(path: Path, num_bytes: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(num_bytes)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Returns a function that sets the most megabytes that Ray accepts."""
    return lambda megabytes: monkeypatch.setattr(upload, "ray_upload_limit", lambda: megabytes * 1_000_000)


def packaged(tree: Path, excludes: list[str]) -> Path:
    """Returns the ZIP file that Ray would upload."""
    target = tree.parent / "package.zip"
    target.unlink(missing_ok=True)
    create_package(
        str(tree), target, include_gitignore=True, excludes=[".git", ".venv", "venv", "__pycache__", *excludes]
    )
    return target


def test_the_size_is_that_of_rays_package(tree: Path) -> None:
    """Trees drawn at random, with ignore files at every level, links, and names that patterns could mistake."""
    drawn = random.Random(1)
    names = ["a.py", "b.log", "data", "ä ö", "[x]", "runs", "__pycache__", "site", "x*", "#c", "!d", ".git", "deep"]
    for number in range(30):
        root = tree / str(number)
        root.mkdir()
        for _ in range(drawn.randrange(40)):
            path = root.joinpath(*drawn.choices(names, k=drawn.randint(1, 4)))
            if os.path.lexists(path) or not all(part.is_dir() for part in path.parents if os.path.lexists(part)):
                continue
            if drawn.random() < 0.2:
                path.mkdir(parents=True)
            elif drawn.random() < 0.1:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(drawn.choice(["nowhere", str(tree.parent / "outside"), path.name]))
            else:
                write(path, drawn.randrange(2000))
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]:
            if drawn.random() < 0.3:
                lines = drawn.sample(["*.log", "/data", "!b.log", "deep/", "ä*", "\\#c", "# a comment"], 3)
                (folder / drawn.choice([".gitignore", ".rayignore"])).write_text("\n".join(lines))
        found = measure(root, EXCLUDES)
        assert found.unreadable == ()
        package = packaged(root, EXCLUDES)
        if zipfile.ZipFile(package).namelist():
            assert found.whole.num_bytes == package.stat().st_size, number


def test_a_folder_over_the_limit_is_refused_with_its_largest_parts(
    tree: Path, limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(50)
    for number in range(30):
        write(tree / "work" / "data" / "images" / f"{number}.png", 1_000_000)
    write(tree / "work" / "old.ckpt", 15_000_000)
    write(tree / "work" / "new.ckpt", 7_000_000)
    write(tree / "work" / "code" / "net.py", 2_000_000)
    monkeypatch.chdir(tree)
    parts = (
        "work/data/images (30.0 MB), work/old.ckpt (15.0 MB), work/new.ckpt (7.0 MB); list the files that the job does "
        "not need"
    )
    with pytest.raises(
        InputError, match=r"would have 54\.0 MB, but Ray accepts less than 50\.0 MB; its largest"
    ) as raised:
        measure(tree, [])
    assert parts in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    (tree / ".gitignore").write_text("*.png\n")
    assert measure(tree, []).whole.num_bytes < 25_000_000


def test_a_search_in_a_huge_folder_ends(
    tree: Path, limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(1)
    monkeypatch.setattr(upload, "SEARCH_SECONDS", -1.0)
    for number in range(5):
        write(tree / str(number), 2_000_000)
    with pytest.raises(InputError, match=r"would have at least 2\.0 MB"):
        measure(tree, [])


def test_a_large_part_is_mentioned(tree: Path, limit: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    limit(100)
    monkeypatch.chdir(tree)
    write(tree / "code.py", 2_000_000)
    assert large_parts(measure(tree, [])) is None
    write(tree / "data" / "train" / "images", 40_000_000)
    wanted = (
        "the job uploads 42.0 MB, mostly data/train/images (40.0 MB); list the files that the job does not need in "
        ".gitignore"
    )
    assert large_parts(measure(tree, [])) == wanted


def test_what_ray_would_read_without_end_is_left_out(tree: Path) -> None:
    """Ray itself would hang: it opens pipes, and follows links without a memory of where it was."""
    write(tree / "a" / "net.py")
    os.mkfifo(tree / "a" / "pi pe[1]")
    (tree / "a" / "to pipe").symlink_to("pi pe[1]")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tree)
        server.bind("soc!ket")
        os.chdir(here)
    for number in range(3):
        (tree / "a" / f"up{number}").symlink_to("..")
        (tree / f"same{number}").symlink_to(".")
    (tree / "beside").symlink_to("a")
    began = time.monotonic()
    found = measure(tree, [])
    excludes = list(found.unreadable)
    assert int(ray_package_hash(tree, excludes), 16)
    package = packaged(tree, excludes)
    assert time.monotonic() - began < 30
    assert sorted(zipfile.ZipFile(package).namelist()) == ["a/net.py", "beside/net.py"]
    assert found.whole.num_bytes == package.stat().st_size


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tree: write(Path(os.fsdecode(os.fsencode(tree) + b"/caf\xe9"))), "has a name that is not in UTF-8"),
        (lambda tree: (tree / ".gitignore").write_bytes(b"caf\xe9\n"), "its .gitignore or .rayignore cannot be read"),
        (lambda tree: write(tree.joinpath(*["d"] * 210, "x")), "is inside more than 200 folders"),
    ],
    ids=["name", "gitignore", "deep"],
)
def test_what_ray_cannot_read_is_refused(tree: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(tree)
    with pytest.raises(InputError, match=words):
        measure(tree, [])


def test_files_and_folders_without_permission_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the permission is replaced."""
    write(tree / "inner" / "secret")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "secret")
    with pytest.raises(
        InputError, match=r"inner/secret: cannot be read, so the folder .*tree cannot be uploaded; add secret to"
    ):
        measure(tree, [])
    (tree / ".gitignore").write_text("secret\n")
    assert measure(tree, []).whole.num_bytes


def test_the_largest_parts_are_named_where_they_split() -> None:
    inner = [Part(Path("a/b/x"), 50), Part(Path("a/b/y"), 40), Part(Path("a/b/z"), 5)]
    whole = Part(Path(), 100, [Part(Path("a"), 97, [Part(Path("a/b"), 96, inner)])])
    assert [str(part.path) for part in whole.largest()] == ["a/b/x", "a/b/y"]
    assert [str(part.path) for part in Part(Path("many"), 9, []).largest()] == ["many"]
