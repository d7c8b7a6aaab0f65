"""The text of a sweep file: what is text stays as it is written, and impossible files are refused in one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.base.plain_values import text_value
from orchestrator.spec.overrides import parse_overrides
from orchestrator.spec.sweep_config import LIST_KEYS, TEXT_KEYS, read_sweep
from orchestrator.spec.sweep_text import read_sweep_text
from supsup_core.errors import InputError

BENCHMARK = "benchmark: {name: permuted, base: digits, num_tasks: 2}\n"
TEXTS = ["20240101_1200", "2024_01_05", "007", "1.10", "12:30", "2024-01-05", "on", "1e-4", "C#/runs", "50%", "0x1F"]


def read(folder: Path, text: str | bytes) -> dict[str, object]:
    path = folder / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_sweep_text(path, TEXT_KEYS)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_stays_as_it_is_written_in_the_file_and_on_the_command_line(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"{BENCHMARK}output: {text}\n")["output"] == text
    assert parse_overrides([f"output={text}"], TEXT_KEYS)["output"] == text
    assert parse_overrides([f'output="{text}"'], TEXT_KEYS)["output"] == text
    assert text_value(f"'{text}'") == text


def test_names_of_variants_stay_as_they_are_written_and_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"{BENCHMARK}variants: {{1e-4: {{scenario: GG}}, on: {{scenario: GNu}}}}\n")
    for override in ('only=["1e-4"]', "only=[1e-4]", "only=1e-4"):
        config = read_sweep(tmp_path / "s.yaml", [override])
        assert config.only == ["1e-4"]
        assert list(config.variants) == ["1e-4", "on"]


def test_null_means_that_a_text_is_not_set() -> None:
    assert parse_overrides(["tracking=null", "only=null"], TEXT_KEYS, LIST_KEYS) == {"tracking": None, "only": None}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_in_the_encodings_of_editors_are_read(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, f"{BENCHMARK}name: naïve\n".encode(encoding))["name"] == "naïve"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)

REFUSED = {
    "an empty file": ("", "has neither the key benchmark nor the key net"),
    "no benchmark and no net": ("seeds: [1]", "has neither the key benchmark nor the key net"),
    "a list": ("- 1", "must be a mapping"),
    "copies of copies": (BOMB, "more than 10,000 values"),
    "deep nesting": ("a: " + "[" * 5000, "not valid YAML"),
    "5,000 digits": (f"{BENCHMARK}seeds: [{'9' * 5000}]", "not valid YAML"),
    "a large file": (BENCHMARK + "#" * 310_000, "larger than 300,000 bytes"),
    "bytes that are no text": (b"\xff\x00\x81", "cannot be read"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_impossible_file_is_refused_within_two_seconds(tmp_path: Path, kind: str) -> None:
    text, words = REFUSED[kind]
    began = time.monotonic()
    with pytest.raises(InputError, match=words) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(str(tmp_path / "s.yaml"))
    assert "\n" not in str(raised.value)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("value", ["2024-13-45", "9" * 5000, "[" * 5000, "{a: *x}", "!!python/object:os.system x"])
def test_an_impossible_override_is_refused(value: str) -> None:
    with pytest.raises(InputError, match=r"command line: training\.num_batches"):
        parse_overrides([f"training.num_batches={value}"])


@pytest.mark.parametrize(("text", "base", "value"), [("190:20:30", 60, 685230), ("12:30", 60, 750), ("017", 8, 15)])
def test_a_number_that_yaml_reads_in_another_base_is_refused(tmp_path: Path, text: str, base: int, value: int) -> None:
    said = f"YAML reads {text} in base {base}, as {value}; write a decimal number, or quote a text"
    with pytest.raises(InputError, match=f"s.yaml: training: {said}"):
        read(tmp_path, f"{BENCHMARK}training: {{batch_size: {text}}}\n")
    with pytest.raises(InputError, match=f"command line: seeds: {said}"):
        parse_overrides([f"seeds=[1, {text}]"], TEXT_KEYS)
    node = read(tmp_path, f'{BENCHMARK}training: {{batch_size: "{text}"}}\n')
    assert node["training"] == {"batch_size": text}


@pytest.mark.parametrize("number", ["0", "-0", "10", "0.5", "007.5", "1_000", "0x1F"])
def test_other_numbers_are_read(tmp_path: Path, number: str) -> None:
    read(tmp_path, f"{BENCHMARK}training: {{learning_rate: {number}}}\n")
    parse_overrides([f"training.learning_rate={number}"])


def test_a_text_with_a_colon_beside_a_merge_key_is_no_number(tmp_path: Path) -> None:
    """A merge key changes the order of the keys, so values cannot be paired by their place."""
    text = f"{BENCHMARK}grid: {{method.mask: ['a:b'], net.num_outputs: [5], <<: {{seeds: [3]}}}}\n"
    assert read(tmp_path, text)["grid"] == {"method.mask": ["a:b"], "net.num_outputs": [5], "seeds": [3]}
    with pytest.raises(InputError, match="YAML reads 1:30 in base 60"):
        read(tmp_path, f"{BENCHMARK}grid: {{net.num_outputs: [1:30], <<: {{seeds: [3]}}}}\n")
