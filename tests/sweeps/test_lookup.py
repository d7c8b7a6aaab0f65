"""The states of training groups, read from an output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.ledgers.ledger import LedgerWriter
from orchestrator.records.planned_group import GroupSize
from orchestrator.records.rows import Event, GroupPlanned, LaunchEnded, ShardTrained
from orchestrator.sweeps.lookup import read_state, read_states
from supsup_core.errors import CorruptError
from tests.records.samples import ENVIRONMENT, GROUP, TRAINED


def planned(group_id: str) -> GroupPlanned:
    return GroupPlanned(replace(GROUP, group_id=group_id), ENVIRONMENT)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes the ledger of a group of the sweep `small-123456`."""

    def made(group_id: str, *events: Event) -> Path:
        path = OutputFolder(tmp_path).sweep("small-123456").group(group_id).ledger
        writer = LedgerWriter(path)
        for event in events:
            writer.append(event)
        writer.close()
        return path

    return made


def test_a_state_is_the_replay_of_the_ledger(write: Callable[..., Path], tmp_path: Path) -> None:
    write("a", planned("a"), ShardTrained("aa", TRAINED, ""), LaunchEnded("failed"))
    folder = OutputFolder(tmp_path).sweep("small-123456")
    state = read_state(folder.group("a"))
    assert (set(state.trained), state.status, state.group.group_id) == ({"aa"}, "failed", "a")
    assert read_state(folder.group("not begun")).plan is None


def test_the_groups_of_the_last_launch_are_read_or_all_groups_if_there_was_no_launch(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    for group_id in ("a", "b"):
        write(group_id, planned(group_id))
    folder = OutputFolder(tmp_path).sweep("small-123456")
    assert set(read_states(folder, {})) == {"a", "b"}
    assert set(read_states(folder, {"b": GroupSize(2, 2), "c": GroupSize(2, 2)})) == {"b"}


def test_a_damaged_ledger_names_the_command_that_repairs_it(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write("a", planned("a"))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CorruptError, match=r"`supsup resume small-123456 output=.*`"):
        read_state(OutputFolder(tmp_path).sweep("small-123456").group("a"))


def test_a_ledger_of_another_group_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    write("b", planned("a"))
    with pytest.raises(CorruptError, match="belongs to another training group, a"):
        read_state(OutputFolder(tmp_path).sweep("small-123456").group("b"))


def test_reading_a_state_imports_no_heavy_library(write: Callable[..., Path]) -> None:
    path = write("a", planned("a"), ShardTrained("aa", TRAINED, ""))
    code = (
        "import sys; from pathlib import Path; from orchestrator.base.output_folder import GroupFolder\n"
        "from orchestrator.sweeps.lookup import read_state\n"
        "read_state(GroupFolder(Path(sys.argv[1]))); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path.parent)], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_a_group_whose_ledger_was_deleted_does_not_count_as_not_begun(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    write("a", planned("a")).unlink()
    with pytest.raises(CorruptError, match="the ledger is missing, although rows were committed to it"):
        read_states(OutputFolder(tmp_path).sweep("small-123456"), {})
