"""MLflow's pages in headless Chromium, served by `supsup ui` as a user serves them."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException

from orchestrator.base.output_folder import OutputFolder
from orchestrator.tracking.mlflow_address import tracking_uri


class Pages:
    """MLflow's pages in a browser."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self._driver = driver
        self._address = address

    def open(self, path: str, *words: str) -> str:
        """Opens a page, waits until it shows all the words, and returns its text."""
        # The browser loads nothing if only the URL's fragment changes, and a reload may come before a page is loaded.
        self._driver.get("about:blank")
        self._driver.get(f"{self._address}/#{path}")
        text = ""
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            with contextlib.suppress(StaleElementReferenceException):  # the page was rendered again in the meantime
                text = self._driver.find_element("tag name", "body").text
            if all(word in text for word in words):
                return text
            time.sleep(0.3)
        raise AssertionError(f"{[word for word in words if word not in text]} not on {path}: {text}")

    def picture_sizes(self) -> list[tuple[int, int]]:
        """Returns the natural width and height in pixels of every picture that is displayed."""
        script = "return Array.from(document.images).map(i => [i.naturalWidth, i.naturalHeight])"
        return [(int(width), int(height)) for width, height in self._driver.execute_script(script)]


@pytest.fixture
def pages(tmp_path: Path, browser: webdriver.Chrome) -> Iterator[Pages]:
    """MLflow's pages of the output `runs` in tmp_path, served by `supsup ui`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "orchestrator.cli", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    assert server.stdout is not None
    assert address in server.stdout.readline()
    _wait_for(f"{address}/health")
    try:
        yield Pages(browser, address)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
        server.stdout.close()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{address}/health", timeout=2)


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


@pytest.fixture
def swept(supsup: Callable[..., Any], sweep_file: Callable[..., Path]) -> None:
    """Runs a sweep of two runs to its end, before the server opens the database."""
    found = supsup("sweep", sweep_file(grid={"scenario": ["GG", "GNu"]}), "--local")
    assert found.code == 0, found.err


def test_the_pages_show_the_sweeps_runs_their_metrics_and_the_plot(swept: None, pages: Pages, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri(OutputFolder(tmp_path / "runs").mlflow))
    experiment = client.get_experiment_by_name("small").experiment_id
    found = {run.info.run_name: run for run in client.search_runs([experiment])}
    (sweep,) = (name for name in found if name.startswith("small-"))

    home = f"/experiments/{experiment}/runs"
    pages.open(home, sweep, "4 matching runs")

    evaluation = found["GNu one_shot entropy seed=0"]
    accuracy = f"{evaluation.data.metrics['accuracy']:.3f}"
    pages.open(
        f"{home}/{evaluation.info.run_id}",
        "GNu one_shot entropy seed=0", "accuracy", accuracy, "task_inference_accuracy", "benchmark.num_tasks",
        "Finished", sweep, "digits",
    )  # fmt: skip
    pages.open(f"{home}/{evaluation.info.run_id}/model-metrics", "accuracy_strict", "forgetting")
    pages.open(f"{home}/{found['train seed=0'].info.run_id}/model-metrics", "loss", "task_accuracy")

    plot = f"{home}/{found[sweep].info.run_id}/artifacts/report/accuracy_over_tasks.png"
    pages.open(plot, "accuracy_over_tasks.png", "summary.csv", "confusion.csv")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not any(width > 900 for width, _ in pages.picture_sizes()):
        time.sleep(0.3)
    assert any(width > 900 and height > 500 for width, height in pages.picture_sizes())


def test_the_pages_compare_runs_and_show_tables(swept: None, pages: Pages, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri(OutputFolder(tmp_path / "runs").mlflow))
    experiment = client.get_experiment_by_name("small").experiment_id
    kinds = "tags.`supsup.kind` = 'evaluation'"
    first, second = client.search_runs([experiment], kinds, order_by=["attributes.run_name"])

    chosen = f'runs=["{first.info.run_id}","{second.info.run_id}"]&experiments=["{experiment}"]'
    names = (first.info.run_name, second.info.run_name)
    assert names == ("GG seed=0", "GNu one_shot entropy seed=0")
    pages.open(f"/compare-runs?{chosen}", *names, "Comparing 2 Runs", "scenario", "inference.rule", "accuracy")

    folder = f"/experiments/{experiment}/runs/{second.info.run_id}/artifacts/tables"
    pages.open(f"{folder}/tasks.json", "tasks.json", "confusion.json", "accuracy", "num_learned")
