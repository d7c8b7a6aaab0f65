"""Any name of a folder means the same output for every verb, and no verb makes another folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.wording import one_line
from tests.cli.command_lines import command_line, verbs_of_an_output
from tests.cli.fuzzing import files_of
from tests.cli.test_bad_input import refused

PATHS = [
    "a#b", "what?", "50%", "a%41", "a b", " a ", "ünï", "🦊", "x" * 255, "a\nb", "a\x1b[31mb", "=1+1", "-x", "2024_01",
    "007", "1.10", "12:30", "2024-01-05", "on", "1e-4", "0x1F", "[a]", "{a: b}", "a: b", "*a", "&a", "!x", "a'b", 'a"b',
    "$HOME", "a;b", "a|b", "sub/../c", "../out/d", "./e", "f//g", "~/h",
]  # fmt: skip


@pytest.mark.parametrize("verb", verbs_of_an_output())
def test_every_verb_uses_the_folder_that_is_typed(
    supsup: Callable[..., Any],
    sweep_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    """The output has another version, which every verb refuses before it does anything else."""
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    line = command_line(verb, sweep_file())
    monkeypatch.chdir(work)
    folders = {path: (tmp_path / "home" / path[2:] if path.startswith("~") else work / path) for path in PATHS}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "supsup-output.json").write_text(json.dumps({"format": 99}))
    before = files_of(tmp_path)
    for path, folder in folders.items():
        refused(supsup(*line, f"output={path}"), f"{one_line(folder)}: was made by an incompatible version")
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("verb", verbs_of_an_output())
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("x" * 256, "cannot be an output (File name too long)"),
        ("y/" * 3000, "cannot be an output (File name too long)"),
        ("loop/x", "cannot be an output (Too many levels"),
        ("~nobody_at_all/x", "this machine does not know the home folder"),
        ("a\udcffb", "UTF-8"),
    ],
)
def test_every_verb_refuses_a_folder_that_cannot_be(
    supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path, verb: str, path: str, words: str
) -> None:
    line = command_line(verb, sweep_file())
    (tmp_path / "loop").symlink_to("loop")
    before = files_of(tmp_path)
    found = supsup(*line, f"output={path}")
    refused(found)
    assert words in found.err or "valid Unicode" in found.err, found.err
    assert files_of(tmp_path) == before
