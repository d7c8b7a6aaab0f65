"""Parsing of a command line's positional words, and commands that are printed to be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from orchestrator.base.output_folder import OutputFolder
from orchestrator.cli.arguments import Words, cluster_options, run_command, words
from orchestrator.cli.verb_table import VERBS
from tests.cli.command_lines import words_of


def parse(declaration: str, *typed: str, **kinds: object) -> Words:
    """Parses `typed` as the positional words of a verb that declares them as `declaration`."""
    found: list[Words] = []

    @click.command()
    @words(declaration, "output", "data", "storage", **kinds)  # type: ignore[arg-type]
    def verb(words: Words) -> int:
        found.append(words)
        return 0

    verb.main([*typed], standalone_mode=False)
    return found[0]


def test_options_may_stand_anywhere_among_the_words(tmp_path: Path) -> None:
    output = f"output={tmp_path}"
    for typed in ([output, "small", "a.b=1"], ["small", "a.b=1", output], ["a.b=1", output, "small"]):
        found = parse("", *typed, has_overrides=True)
        assert (found.name, found.overrides, found.output) == ("small", ("a.b=1",), OutputFolder(tmp_path))


def test_output_is_runs_in_the_working_directory_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = parse("")
    assert found == Words((), (), OutputFolder(tmp_path / "runs"), None, None)
    assert found.name is None


def test_folders_become_absolute_and_a_storage_url_stays_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    found = parse("", "output=~/here", "data=there", "storage=s3://bucket/runs")
    assert found.output == OutputFolder(Path("/home/somebody/here"))
    assert (found.data, found.storage) == (tmp_path / "there", "s3://bucket/runs")


def test_names_of_runs_may_contain_key_value_words() -> None:
    found = parse("", "seed=0", "output=here", "GG seed=1", noun="run", most=None)
    assert found.names == ("seed=0", "GG seed=1")


@pytest.mark.parametrize(
    ("typed", "kinds", "message"),
    [
        (["outptu=x"], {}, "outptu: is not an option of this command; the options are: output=…, data=…, storage=…"),
        (["a", "b"], {}, "give one sweep, not 2: a, b"),
        (["a", "b"], {"noun": "run"}, "give one run, not 2: a, b; put the words of a run's name in quotes: 'a b'"),
        ([], {"least": 1}, "SWEEP is missing: give its name, or the beginning of its name"),
        ([], {"least": 1, "noun": "run"}, "RUN is missing: give the run's id, or words of its name"),
        (["small"], {"most": 0}, "'small' is not an option of this command; the options are: output=…"),
    ],
)
def test_wrong_words_are_named(typed: list[str], kinds: dict[str, object], message: str) -> None:
    with pytest.raises(click.UsageError, match=message.replace("(", r"\(")):
        parse("", *typed, **kinds)


def test_job_must_be_named() -> None:
    assert parse("", "job-1").job == "job-1"
    with pytest.raises(click.UsageError, match="JOB is missing"):
        _ = parse("").job


@pytest.mark.parametrize("verb", VERBS)
def test_usage_of_a_verb_shows_the_options_that_it_takes(verb: str) -> None:
    found = words_of(verb)
    if found is not None:
        assert found.metavar is not None
        assert [option for option in found.options if f"{option}=" not in found.metavar] == []


@pytest.mark.parametrize(
    ("typed", "environment", "cluster"),
    [
        ([], {}, "local"),
        (["--local"], {}, None),
        (["--address", "head:6379"], {}, "head:6379"),
        ([], {"RAY_ADDRESS": "head:6379"}, "head:6379"),
        (["--local"], {"RAY_ADDRESS": "head:6379"}, None),
    ],
)
def test_a_sweep_runs_in_this_process_on_a_local_ray_or_at_an_address(
    typed: list[str], environment: dict[str, str], cluster: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    @click.command()
    @cluster_options
    def verb(cluster: str | None) -> int:
        found.append(cluster)
        return 0

    monkeypatch.setattr("orchestrator.cli.arguments.refuse_unreachable", lambda address: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    verb.main(typed, standalone_mode=False)
    assert found == [cluster]


def test_command_on_a_run_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = OutputFolder(tmp_path / "my runs").sweep("small-12")
    typed = shlex.split(run_command("retry", folder, "it's GG seed=0", [1, 2]))
    assert typed == ["supsup", "retry", "small-12 it's GG seed=0", "--task", "1", "--task", "2", "output=my runs"]
