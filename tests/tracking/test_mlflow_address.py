"""The address of a sweep's MLflow store, and the message if the store cannot be written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.mlflow_address import explained, tracking_uri_of
from supsup_core.errors import InputError, SupSupError


def test_a_sweep_is_written_to_the_server_it_names_or_to_its_own_output(empty: Sweep) -> None:
    assert tracking_uri_of(empty) == f"sqlite:///{empty.output.path}/mlflow/mlflow.db"
    served = replace(empty, config=replace(empty.config, tracking="http://127.0.0.1:5000"))
    assert tracking_uri_of(served) == "http://127.0.0.1:5000"


def test_an_error_of_mlflow_names_the_command_that_writes_what_is_missing(empty: Sweep) -> None:
    remedy = rf"\(no route\).*`supsup report {empty.sweep_id} output=runs`"
    with pytest.raises(SupSupError, match=remedy), explained(empty):
        raise OSError("no route\nand a second line")


def test_an_error_of_this_program_is_passed_on(empty: Sweep) -> None:
    error = InputError("seeds: none")
    with pytest.raises(InputError) as found, explained(empty):
        raise error
    assert found.value is error


@pytest.mark.parametrize("module", ["mlflow_address", "ui_server", "team_server"])
def test_the_modules_for_the_address_and_the_server_import_neither_mlflow_nor_torch(module: str) -> None:
    """Both libraries take seconds to import. The servers run in separate processes."""
    code = f"import sys, orchestrator.tracking.{module}; print({{'mlflow', 'torch'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
