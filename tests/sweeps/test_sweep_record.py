"""The records of sweeps (sweep.json), and the marker file of an output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.records.planned_group import GroupSize
from orchestrator.sweeps.sweep import Sweep, open_sweep
from orchestrator.sweeps.sweep_record import (
    FORMAT,
    all_records,
    check_output,
    find_record,
    mark_output,
    output_id_of,
    read_record,
    storage_of,
)
from supsup_core.errors import InputError


@pytest.fixture
def save(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Sweep]:
    """Returns a function that saves a sweep with a given name in `output`. Each sweep is newer than the last one."""
    monkeypatch.chdir(tmp_path)
    times = iter(range(1_000_000_000, 1_000_000_009))

    def made(name: str) -> Sweep:
        sweep = open_sweep(sweep_file(), [f"name={name}"])
        sweep.save(sweep.plan())
        now = next(times)
        os.utime(sweep.folder.sweep_file, (now, now))
        return sweep

    return made


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    return OutputFolder(tmp_path / "runs")


def test_a_record_contains_the_saved_sweep(save: Callable[[str], Sweep]) -> None:
    sweep = save("small")
    record = read_record(sweep.folder)
    assert (record.sweep_id, record.file, record.storage, record.origin) == (sweep.sweep_id, sweep.file, None, None)
    assert record.planned == {group.group_id: group.size for group in sweep.plan()}
    assert all(isinstance(size, GroupSize) for size in record.planned.values())
    assert record.config["benchmark"]["num_tasks"] == 3
    assert record.cache_bytes == sweep.cache_bytes
    assert record.command("resume") == f"supsup resume {sweep.sweep_id} output=runs"
    assert record.masks("abc").folder == sweep.masks("abc").folder


def test_reading_a_record_imports_no_heavy_library(save: Callable[[str], Sweep], tmp_path: Path) -> None:
    save("small")
    code = (
        "import sys; from pathlib import Path; from orchestrator.base.output_folder import OutputFolder\n"
        "from orchestrator.sweeps.sweep_record import find_record\n"
        "print(find_record(OutputFolder(Path(sys.argv[1])), None).sweep_id, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "runs")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split()[1] == "False"


def test_a_sweep_is_found_by_a_prefix_of_its_name_and_without_a_name_the_newest_is_found(
    save: Callable[[str], Sweep], output: OutputFolder
) -> None:
    with pytest.raises(InputError, match="contains no sweep; start one with `supsup sweep FILE`"):
        find_record(output, None)
    first, second = save("small"), save("smaller")
    assert find_record(output, None).sweep_id == second.sweep_id
    assert find_record(output, "smaller").sweep_id == second.sweep_id
    assert find_record(output, "small").sweep_id == first.sweep_id  # its full name
    assert find_record(output, first.sweep_id).sweep_id == first.sweep_id
    with pytest.raises(InputError, match=r"smal: several sweeps match.*choose one of: small-.*, smaller-"):
        find_record(output, "smal")
    with pytest.raises(InputError, match="large: no such sweep"):
        find_record(output, "large")


def test_a_damaged_sweep_is_reported_and_the_others_are_read(
    save: Callable[[str], Sweep], output: OutputFolder
) -> None:
    sound, damaged = save("sound"), save("damaged")
    damaged.folder.sweep_file.write_text("{")
    reported: list[InputError] = []
    assert [record.sweep_id for record in all_records(output, reported.append)] == [sound.sweep_id]
    (error,) = reported
    assert f"{damaged.folder.sweep_file}: is damaged" in str(error)
    with pytest.raises(InputError, match="damaged"):
        all_records(output)
    sound.folder.sweep_file.unlink()
    with pytest.raises(InputError, match="damaged"):
        all_records(output, reported.append)  # the output has no other sweep


@pytest.mark.parametrize("change", [{"config": None}, {"planned": {"a": [1]}}, {"origin": [1]}, {"bases": [1]}])
def test_a_record_with_missing_or_wrong_fields_is_refused(
    save: Callable[[str], Sweep], change: dict[str, object]
) -> None:
    sweep = save("small")
    node = json.loads(sweep.folder.sweep_file.read_text())
    sweep.folder.sweep_file.write_text(json.dumps({**node, **change}))
    with pytest.raises(InputError, match=r"sweep.json: is damaged .*; start the sweep again with `supsup sweep FILE`"):
        read_record(sweep.folder)


def test_an_output_of_another_format_or_with_a_damaged_marker_is_refused(output: OutputFolder) -> None:
    check_output(output)  # the output has no marker yet
    mark_output(output, None)
    check_output(output)
    output.marker.write_text(json.dumps({"format": FORMAT - 1}))
    with pytest.raises(InputError, match=f"format {FORMAT - 1}, but this version writes format {FORMAT}"):
        check_output(output)
    output.marker.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        check_output(output)


def test_the_storage_and_the_id_of_an_output_are_stored(output: OutputFolder) -> None:
    assert storage_of(output) is None
    mark_output(output, "file:///stored/")
    first = output_id_of(output)
    mark_output(output, "file:///stored")
    assert (storage_of(output), output_id_of(output)) == ("file:///stored", first)
    for other in ("file:///another", None):
        with pytest.raises(InputError, match="already uses the storage file:///stored"):
            mark_output(output, other)
    elsewhere = OutputFolder(output.path.with_name("elsewhere"))
    mark_output(elsewhere, "file:///stored")
    assert output_id_of(elsewhere) != first


def test_a_damaged_record_is_kept_and_replaced_when_the_sweep_is_started_again(
    save: Callable[[str], Sweep], caplog: pytest.LogCaptureFixture
) -> None:
    sweep = save("small")
    sound = sweep.folder.sweep_file.read_bytes()
    sweep.folder.sweep_file.write_bytes(sound[:100])
    again = open_sweep(sweep.file, [])
    assert "is damaged" in caplog.text
    again.save(again.plan())
    assert sweep.folder.sweep_file.read_bytes() == sound
    (kept,) = sweep.folder.path.glob("sweep.json.corrupt*")
    assert kept.read_bytes() == sound[:100]


def test_a_record_of_another_sweep_is_refused(save: Callable[[str], Sweep]) -> None:
    first, second = save("first"), save("second")
    first.folder.sweep_file.write_bytes(second.folder.sweep_file.read_bytes())
    with pytest.raises(InputError, match=f"belongs to the sweep {second.sweep_id}, not to {first.sweep_id}"):
        read_record(first.folder)


def test_a_record_without_a_checksum_is_read_if_its_config_fits_its_id(save: Callable[[str], Sweep]) -> None:
    sweep = save("small")
    node = json.loads(sweep.folder.sweep_file.read_text())
    del node["sha256"], node["config"]["evaluation"]["forgetting"]  # the versions without a checksum had neither
    sweep.folder.sweep_file.write_text(json.dumps(node))
    assert read_record(sweep.folder).sweep_id == sweep.sweep_id
    node["config"]["seeds"] = [1]
    sweep.folder.sweep_file.write_text(json.dumps(node))
    with pytest.raises(InputError, match="do not match its sweep id"):
        read_record(sweep.folder)
