"""Packages that are loaded when something of theirs is first used."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.deferral import defer, settle

NAME = "late_comer"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that notes each time it is loaded, takes a while for it, and has a module within."""
    home = tmp_path / NAME
    home.mkdir()
    (home / "__init__.py").write_text(
        "import time\nwith open(__file__ + '.loads', 'a') as notes: notes.write('x')\ntime.sleep(0.3)\nanswer = 42\n"
    )
    (home / "inner.py").write_text("from late_comer import answer\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield NAME
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def loads(home: Path) -> int:
    found = home / NAME / "__init__.py.loads"
    return len(found.read_text()) if found.exists() else 0


def imported() -> Any:
    import late_comer  # type: ignore[import-not-found]

    return late_comer


def test_it_is_loaded_when_something_is_looked_up_and_once(package: str, tmp_path: Path) -> None:
    defer(package)
    early = imported()
    assert loads(tmp_path) == 0
    assert early.answer == 42
    assert imported().answer == 42
    with pytest.raises(AttributeError, match="no attribute 'question'"):
        _ = early.question
    assert loads(tmp_path) == 1


def test_threads_that_look_at_once_all_find_it_whole(package: str, tmp_path: Path) -> None:
    defer(package)
    early = imported()
    found: list[int] = []

    def look(from_early: bool) -> None:
        found.append((early if from_early else imported()).answer)

    threads = [threading.Thread(target=look, args=(number % 2 == 0,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [42] * 8
    assert loads(tmp_path) == 1


def test_a_module_within_loads_the_package_first(package: str, tmp_path: Path) -> None:
    defer(package)
    from late_comer.inner import answer

    assert answer == 42
    assert loads(tmp_path) == 1


def test_once_settled_nobody_finds_what_is_not_loaded_and_early_importers_keep_what_they_have(
    package: str, tmp_path: Path
) -> None:
    defer(package)
    early = imported()
    settle()
    assert package not in sys.modules
    assert loads(tmp_path) == 0
    assert early.answer == 42
    assert imported().answer == 42
    assert loads(tmp_path) == 1


def test_what_is_not_there_cannot_be_imported_all_the_same() -> None:
    defer("no_such_package_at_all")
    assert "no_such_package_at_all" not in sys.modules
