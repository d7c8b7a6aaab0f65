"""Bad input gives exit code 2 and one line that names the error and the remedy. No file is written."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sweeps.sweep import open_sweep
from tests.cli.command_lines import command_line, verbs_of_an_output, verbs_of_existing_sweeps, verbs_with_few_names

Command = Callable[..., Any]


def refused(result: Any, *words: str) -> None:
    """Asserts exit code 2 and one line on standard error that contains all the words."""
    assert result.code == 2, result
    assert len(result.err.strip().splitlines()) == 1, result.err
    for word in words:
        assert word in result.err, f"{word!r} is not in {result.err!r}"
    assert "Traceback" not in result.err


NNS: dict[str, Any] = {"scenario": "NNs", "stream": {"segment_batches": 10}}


def _space(key: str, values: Any) -> dict[str, Any]:
    """Returns the settings of a search over one key."""
    return {"space": {key: values}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tracking": "localhost:5000"}, ["small.yaml", "tracking", "such as http://localhost:5000"]),
        ({"tracking": "http://me:secret@host"}, ["must contain no user or password", "MLFLOW_TRACKING_PASSWORD"]),
        ({"tracking": "http://[::1"}, ["small.yaml", "tracking", "such as http://localhost:5000"]),
        ({"tracking": "http://localhost:mlflow"}, ["small.yaml", "tracking", "such as http://localhost:5000"]),
        ({"storage": "runs"}, ["small.yaml", "storage: must be the URL of a folder, such as s3://bucket/folder"]),
        ({"storage": "s3://me:secret@bucket/x"}, ["storage: the URL must contain no user", "AWS_ACCESS_KEY_ID"]),
        ({"snapshot_every": 0}, ["snapshot_every", "positive number of seconds"]),
        ({"resources": {"cache_gb": -1}}, ["resources.cache_gb", "positive number of gigabytes"]),
        (
            {"training": {"learning_rate": float("inf")}},
            ["training.learning_rate: must be a finite"],
        ),
        ({"method": {"name": "ewc", "strength": float("nan")}}, ["method.strength: must be a finite number, not nan"]),
        ({"grid": {"training.momentum": [0.0, float("inf")]}}, ["grid.training.momentum[1]: must be a finite number"]),
        ({"net": {"name": "hopfield_mlp"}, "training": {"batch_size": 1}, "scenario": "GG"}, ["batch_size: batch"]),
        ({"net": {"name": "hopfield_mlp"}, "scenario": "NNs"}, ["NNs does not support nets with batch normalisation"]),
        ({"search": {"num_trials": 4}}, ["small.yaml", "search.space: is missing; name the keys to search"]),
        ({"search": {"space": {}}}, ["small.yaml", "search.space: is empty"]),
        ({"search": {"spaces": {}}}, ["search.spaces", "did you mean 'space'"]),
        ({"search": _space("benchmark.num_tasks", [1, 2])}, ["search.space.benchmark.num_tasks", "keys start with"]),
        ({"search": _space("training.learning_rate", 3)}, ["search.space.training.learning_rate", "list of choices"]),
        ({"search": _space("training.learning_rate", [1, 1])}, ["search.space.training.learning_rate", "value twice"]),
        ({"search": _space("training.learning_rate", {"low": 2, "high": 1})}, ["low (2) must be below high (1)"]),
        ({"search": _space("training.learning_rate", {"low": 0, "high": 1, "log": True})}, ["must be positive"]),
        ({"search": _space("training.learning_rate", {"low": "a", "high": 1})}, ["low: must be a finite number"]),
        ({"search": _space("training.learning_rate", {"low": 1, "hi": 2})}, ["learning_rate.hi: unknown key"]),
        ({"search": _space("training.learning_rate", {"low": 1, "high": 2})}, ["search.num_trials: is missing"]),
        ({"search": _space("training.learning_rate", [-1, 1])}, ["training.learning_rate: must be positive"]),
        ({"search": _space("training.lerning_rate", [0.1, 1])}, ["lerning_rate", "did you mean 'learning_rate'"]),
        ({"search": {**_space("training.learning_rate", [0.1, 1]), "num_trials": 3}}, ["search.num_trials: 3"]),
        (
            {"search": {**_space("training.learning_rate", [0.1, 1]), "reduction": 1}},
            ["search.reduction", "at least 2"],
        ),
        ({"search": {**_space("training.learning_rate", [0.1, 1]), "held_out": 1.5}}, ["search.held_out", "0 and 1"]),
        ({"search": _space("training.learning_rate", [0.1, 1]), "seeds": [0, 1]}, ["search: needs exactly one seed"]),
        ({"search": _space("training.learning_rate", [1]), "grid": {"scenario": ["GG"]}}, ["search", "grid"]),
        ({"trianing": {"num_batches": 3}}, ["small.yaml", "trianing", "did you mean 'training'"]),
        ({"training": {"num_batchs": 3}}, ["training.num_batchs", "did you mean 'num_batches'"]),
        ({"training": {"num_batches": "many"}}, ["small.yaml", "training.num_batches", "many"]),
        ({"training": {"learning_rate": -1}}, ["small.yaml", "learning_rate", "must be positive"]),
        ({"method": {"name": "supsup", "mask": "top_k", "density": 1.5}}, ["method.density", "(0, 1]", "1.5"]),
        ({"method": {"name": "supsup", "mask": "top_k", "density": 0}}, ["method.density", "(0, 1]"]),
        ({"method": {"name": "supsup", "densty": 0.5}}, ["method.densty", "did you mean 'density'"]),
        ({"method": {"name": "supsub"}}, ["method.name", "did you mean 'supsup'", "choose one of: batch_e, "]),
        ({"method": {"name": None}}, ["method.name: is missing", "supsup"]),
        ({"benchmark": {"name": "permutted"}}, ["benchmark.name", "did you mean 'permuted'"]),
        ({"benchmark": {"name": "permuted", "base": "mnst"}}, ["benchmark", "did you mean 'mnist'", "digits"]),
        ({"benchmark": {"name": "permuted", "base": "digits", "num_tasks": 0}}, ["benchmark.num_tasks", "at least 1"]),
        ({"net": {"name": "lenet_300_100", "num_outputs": 5}}, ["net.num_outputs", "5", "10"]),
        ({"net": {"name": "lenet"}}, ["net.name", "did you mean 'lenet_300_100'"]),
        ({"scenario": "NNu"}, ["scenario", "NNu", "would reveal a new task"]),
        ({"scenario": "GNx"}, ["scenario", "GNx", "GG, GNs, GNu"]),
        ({"scenario": "NNs"}, ["stream.segment_batches", "does not divide training.num_batches=30"]),
        ({**NNS, "allocation": {"name": "ratios"}}, ["allocation.name", "unknown allocation test", "'ratio'"]),
        ({**NNS, "allocation": {"name": "outlier", "epsilon": 0.1}}, ["allocation.epsilon", "unknown key"]),
        ({**NNS, "allocation": {"name": "ratio", "epsilon": -1}}, ["allocation.epsilon", "must be positive"]),
        ({**NNS, "allocation": {"name": "ratio", "images_per_decision": 200}}, ["allocation.images_per_decision"]),
        (
            {
                **NNS,
                "allocation": {"name": "ratio", "objective": "G"},
                "net": {"name": "lenet_300_100", "num_outputs": 10},
            },
            ["allocation.objective", "needs superfluous neurons"],
        ),
        ({**NNS, "budget": {"num_masks": 0}}, ["budget.num_masks", "at least 1"]),
        ({**NNS, "budget": {"on_exhausted": "drop"}}, ["budget.on_exhausted"]),
        ({**NNS, "stream": {"segment_batches": 10, "num_streams": 9}}, ["stream.num_streams", "9 streams"]),
        ({**NNS, "stream": {"segment_batches": 10, "order": "random"}}, ["stream.order"]),
        ({**NNS, "commit_every": 0}, ["commit_every", "positive number of seconds"]),
        ({"inference": {"rule": "oneshot"}}, ["inference.rule: unknown inference rule", "did you mean 'one_shot'"]),
        (
            {"inference": {"objective": "entropie"}},
            ["inference.objective: unknown", "did you mean 'entropy'"],
        ),
        ({"inference": {"rule": "known"}}, ["inference.rule", "GG"]),
        ({"grid": {"inference.objective": []}}, ["grid.inference.objective", "empty"]),
        ({"scenario": "NNs", "training": {"schedule": "cosine"}}, ["training.schedule", "a mask's training"]),
        ({"scenario": "NNs", "method": {"name": "supsup", "transfer": "masks"}}, ["scenario", "transfer"]),
        ({"scenario": "NNs", "method": {"name": "psp"}}, ["psp does not support scenario NNs", "it supports GG"]),
        ({"net": {"name": "gem_resnet18"}}, ["net: a residual network needs images of shape (channels"]),
        ({"variants": {"a": {"methd.name": "psp"}}}, ["variants.a.methd.name", "did you mean 'method'"]),
        ({"variants": {"a": {"method.name": "pspp"}}}, ["variants.a", "method.name", "did you mean 'psp'"]),
        ({"variants": {"a": {"seeds": [1]}}}, ["variants.a.seeds", "not a key of the experiment"]),
        ({"variants": {"a": {}}, "only": ["b"]}, ["only", "no variant 'b'", "the variants are: a"]),
        ({"variants": ["a"]}, ["variants"]),
        (
            {"scale": "smok", "scales": {"smoke": {}}},
            ["scale", "there is no scale 'smok'", "did you mean 'smoke'", "smoke, paper"],
        ),
        ({"scale": "smoke"}, ["scale", "there is no scale 'smoke'", "choose one of: paper"]),
        ({"scale": "s", "scales": {"s": {"training.num_batchs": 1}}}, ["scales.s: training.num_batchs", "unknown key"]),
        ({"scales": ["smoke"]}, ["scales"]),
        ({"scales": {"paper": {"seeds": [1]}}, "scale": "paper"}, ["scales.paper", "another name"]),
        ({"scenario": "GG", "method": {"name": "icarl", "num_exemplars": 5}}, ["method.num_exemplars", "30 classes"]),
        ({"scenario": "GG", "method": {"name": "hop_sup_sup"}}, ["method.name: hop_sup_sup", "hopfield_mlp"]),
        (
            {"variants": {"a": {"method.density": 0.1}}, "grid": {"method": [{"name": "supsup"}]}},
            ["variants.a.method.density", "the grid varies this key too"],
        ),
        ({"variants": {"a": {}}, "only": []}, ["only", "empty"]),
        (
            {"variants": {"a": {"scenario": "GG"}}, "grid": {"scenario": ["GG"]}},
            ["variants.a.scenario", "the grid varies this key too"],
        ),
        ({"grid": {"inferense.objective": ["H"]}}, ["grid.inferense.objective", "not a key of the experiment"]),
        ({"grid": {"inference.objectiv": ["H"]}}, ["inference.objectiv", "did you mean 'objective'"]),
        ({"seeds": []}, ["seeds", "empty"]),
        ({"seeds": [1, 1]}, ["seeds", "twice"]),
        ({"seeds": ["a"]}, ["small.yaml", "seeds"]),
        ({"evaluation": {"at": [0]}}, ["evaluation.at", "each at least 1"]),
        ({"resources": {"device": "cuda:1"}}, ["resources.device", "cuda:1", "cpu or cuda"]),
        ({"resources": {"num_workers": 0}}, ["resources.num_workers", "at least 1"]),
        ({"name": "../escape"}, ["name", "is not a valid folder name"]),
        ({"imports": ["no_such_module_anywhere"]}, ["imports", "no_such_module_anywhere"]),
        ({"imports": ["missing.py"]}, ["imports", "missing.py", "no such file"]),
    ],
)
def test_wrong_value_is_named(
    supsup: Command, sweep_file: Callable[..., Path], changes: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    refused(supsup("sweep", sweep_file(**changes), "--local"), *words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("benchmark.num_task=3", ["benchmark.num_task", "did you mean 'num_tasks'"]),
        ("training.num_batches=x", ["command line", "training.num_batches"]),
        ("nonsense", ["'nonsense' is not of the form key=value"]),
        ("seeds=5", ["command line", "seeds"]),
        ("inference.rule=[", ["command line", "inference.rule"]),
        ("resources.device=tpu", ["resources.device", "must be cpu or cuda, not 'tpu'"]),
        ("training.optimizer=sgdx", ["training.optimizer: unknown optimizer", "did you mean 'sgd'"]),
        ("net.num_outputs=100000000000000", ["net.num_outputs: must be at most 1,000,000"]),
        ("training.learning_rate=[1e-4,1e-3]", ["training.learning_rate: must be a single value", "set grid.training"]),
    ],
)
def test_wrong_override_is_named(
    supsup: Command, sweep_file: Callable[..., Path], override: str, words: list[str]
) -> None:
    refused(supsup("plan", sweep_file(), override), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\n  seeds: [0]\n", ["broken.yaml, line 2", "not valid YAML"]),
        ("- a\n- b\n", ["broken.yaml", "a mapping of keys to values"]),
        ("name: x\nname: y\n", ["broken.yaml", "duplicate key"]),
        ("name: \x00", ["broken.yaml"]),
        ("name: ${x", ["broken.yaml", "is not supported"]),
        ("name: x\nseeds: ${oc.env:HOME}\n", ["broken.yaml", "is not supported"]),
    ],
)
def test_file_that_is_not_a_sweep_file_is_named(supsup: Command, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    refused(supsup("plan", "broken.yaml"), *words)


def test_missing_file_is_named(supsup: Command) -> None:
    refused(supsup("sweep", "nowhere.yaml"), "nowhere.yaml", "cannot be read")


def test_broken_user_module_is_named(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "broken_toys.py").write_text("1 / 0\n")
    refused(supsup("plan", sweep_file(imports=["broken_toys.py"])), "broken_toys.py", "ZeroDivisionError")


def test_missing_data_is_named_before_anything_starts(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(benchmark={"name": "permuted", "base": "mnist", "num_tasks": 2})
    refused(supsup("sweep", file, "data=nowhere", "--local"), "nowhere/mnist/train-images", "missing", "data=")
    assert not (tmp_path / "runs").exists()


def test_output_that_cannot_be_written_is_named(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "occupied").write_text("a file where a folder should be")
    refused(supsup("sweep", sweep_file(), "output=occupied", "--local"), "occupied", "set output=DIR")


def test_output_on_a_read_only_file_system_is_named(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    refused(supsup("sweep", sweep_file(), "output=/sys/supsup", "--local"), "/sys/supsup", "set output=DIR")


@pytest.mark.parametrize("verb", verbs_of_an_output())
def test_output_whose_path_is_no_text_is_named(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sweep_file()
    folder = os.fsencode(tmp_path) + b"/cwd-\xff"
    os.mkdir(folder)
    monkeypatch.chdir(os.fsdecode(folder))
    refused(supsup(*command_line(verb, file)), r"cwd-\udcff/runs is not UTF-8", "set output=DIR")
    assert os.listdir(folder) == []


def test_name_that_ray_cannot_read_is_refused_before_ray_starts(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    file = sweep_file(os.fsdecode(b"odd-\xff.yaml"))
    refused(supsup("sweep", file), r"odd-\udcff.yaml: is not valid UTF-8", "--local")
    refused(
        supsup("sweep", sweep_file(), os.fsdecode(b"data=\xff")),
        "data: contains null characters or characters that are not valid Unicode; remove",
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", ["status", "plan", "sweep", "ui"])
def test_deleted_current_folder_is_named(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path, verb: str
) -> None:
    file = sweep_file()
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(supsup(*command_line(verb, file)), "the current folder was deleted; change to another folder")


@pytest.mark.parametrize("verb", verbs_of_an_output())
def test_output_of_another_version_is_refused(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path, verb: str
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "supsup-output.json").write_text(json.dumps({"format": 99}))
    refused(supsup(*command_line(verb, sweep_file())), "incompatible version", "format 99", "output=DIR")


@pytest.mark.parametrize("verb", verbs_of_existing_sweeps())
def test_output_without_sweeps_says_how_to_begin(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path, verb: str
) -> None:
    refused(supsup(*command_line(verb, sweep_file())), f"{tmp_path}/runs: contains no sweep", "supsup sweep FILE")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", ["gc", "fsck"])
def test_folder_that_is_not_an_output_is_named(supsup: Command, verb: str, tmp_path: Path) -> None:
    refused(supsup(verb, "output=elsewhere"), f"{tmp_path}/elsewhere: is not an output of supsup", "set output=DIR")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("verb", verbs_with_few_names())
def test_superfluous_word_is_refused_with_a_pointer_to_the_help(supsup: Command, verb: str) -> None:
    refused(supsup(verb, "name", "another name", "outptu=x"), f"(see supsup {verb} --help)")


def test_ui_without_a_database_says_so(supsup: Command) -> None:
    refused(supsup("ui"), "has no MLflow database")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["swep"], ["swep"]),
        (["sweep"], ["FILE"]),
        (["resume", "a", "b"], ["give one sweep, not 2"]),
        (["status", "outptu=x"], ["outptu: is not an option of this command", "output=…", "see supsup status --help"]),
        (["decisions", "allocation.epsilon=1"], ["allocation.epsilon: is not an option of this command", "--replay"]),
        (["fetch"], ["storage=URL is missing"]),
        (["export", "GNu", "seed=0"], ["give one run, not 2", "put the words of a run's name in quotes: 'GNu seed=0'"]),
        (["gc", "small"], ["'small' is not an option", "output=…"]),
        (["sweep", "x.yaml", "--workers", "0"], ["--workers"]),
    ],
)
def test_wrong_command_line_is_refused_in_one_line(supsup: Command, arguments: list[str], words: list[str]) -> None:
    refused(supsup(*arguments), *words)


def test_options_that_a_search_does_not_support_are_refused(supsup: Command, sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(search=_space("training.learning_rate", [0.1, 1]))
    refused(supsup("sweep", file, "--local"), "--local: a search needs Ray Tune")
    sweep = open_sweep(file, [])
    sweep.save(sweep.plan())
    refused(supsup("evaluate", "small", "inference.rule=binary"), "the same inference settings", "best.yaml")
    refused(supsup("fork", "small", "benchmark.num_tasks=4"), "is a search, which cannot be forked", "best.yaml")


def test_damaged_output_is_named_and_resume_repairs_it(
    supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert supsup("sweep", sweep_file(grid={"scenario": ["GG", "GNu"]}), "--local").code == 0
    (ledger,) = tmp_path.glob("runs/sweeps/*/groups/*/ledger.sqlite")
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(ledger.read_bytes())
    content[content.index(b"weights_sha256")] ^= 1
    stale = ledger.parents[1] / "of-an-older-version" / "ledger.sqlite"
    stale.parent.mkdir()
    stale.write_bytes(b"damaged")  # this sweep's plan does not contain it, so it is never read
    with ledger.open("r+b") as file:
        file.write(content)
    for command in (["report"], ["status"], ["compare", "GG", "GNu"], ["export", "GG"]):
        refused(supsup(*command), "ledger.sqlite", "`supsup resume small-", "restores the ledger")
    found = supsup("resume", "--local")
    assert found.code == 0, found.err
    assert "recomputed" in found.out
    assert supsup("report").code == 0
    (sweep,) = tmp_path.glob("runs/sweeps/*/sweep.json")
    sweep.write_text(sweep.read_text()[:100])
    for command in (["report"], ["status"], ["compare", "GG", "GNu"], ["resume"]):
        refused(supsup(*command), "sweep.json: is damaged", "start the sweep again with `supsup sweep FILE`")
