"""Times MLflow's searches and pages with 300 runs of 50 metrics each.

    python -m bench.mlflow_pages FOLDER [RUNS]

The benchmark runs a sweep with RUNS/2 seeds on scikit-learn's digits, which gives a training run and an evaluation run
for each seed. It logs extra metrics until every run has 50. Then it times MLflow's search, `supsup report`, `supsup
compare`, and the pages in headless Chromium. A page's time lasts from the request until the page shows its main
content. Times are in seconds; searches and pages are medians of five.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from orchestrator.base.output_folder import OutputFolder
from orchestrator.tracking.mlflow_address import tracking_uri

SUPSUP = [sys.executable, "-m", "orchestrator.cli"]

SWEEP = """\
scenario: GNu
benchmark: {name: permuted, base: digits, num_tasks: 5}
net: {name: lenet_300_100, num_outputs: 20}
training: {num_batches: 60, learning_rate: 1.0e-3}
inference: {strict_images: 0}
evaluation: {at: [1, 2, 3, 4, 5]}
"""

NUM_METRICS = 50
REPEATS = 5
PATIENCE = 120.0


def seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Returns the median seconds of `repeats` calls of `work`."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return round(statistics.median(taken), 2)


def command(folder: Path, *words: str) -> None:
    """Runs a supsup command in the folder."""
    subprocess.run([*SUPSUP, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def top_up(client: mlflow.MlflowClient, runs: list[Any]) -> None:
    """Logs extra metrics to every run until it has NUM_METRICS of them."""
    now = int(1000 * time.time())
    for run in runs:
        missing = NUM_METRICS - len(run.data.metrics)
        client.log_batch(run.info.run_id, [Metric(f"extra_{i:02}", i / 50, now, 0) for i in range(missing)])


class Browser:
    """Headless Chromium that opens the pages which `supsup ui` serves from the folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        self._server = subprocess.Popen([*SUPSUP, "ui", "--port", str(port)], cwd=folder, stdout=subprocess.DEVNULL)
        options = webdriver.ChromeOptions()
        for flag in ("--headless", "--no-sandbox", "--window-size=1600,1200", f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        self._driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        while True:
            try:
                urllib.request.urlopen(f"{self._address}/health", timeout=2).close()
            except OSError:
                time.sleep(0.2)
            else:
                return

    def show(self, path: str, *words: str) -> None:
        """Loads a page and waits until it shows all the words; AssertionError if they do not appear in 120 seconds."""
        self._driver.get("about:blank")
        self._driver.get(f"{self._address}/#{path}")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            text = self._driver.find_element("tag name", "body").text
            if all(word in text for word in words):
                return
            time.sleep(0.02)
        raise AssertionError(f"{words} never shown on {path}: {text[:2000]}")

    def picture(self, file: Path) -> None:
        """Saves a screenshot of the page."""
        self._driver.save_screenshot(str(file))

    def close(self) -> None:
        """Stops the browser and the server."""
        self._driver.quit()
        self._server.send_signal(signal.SIGTERM)
        self._server.wait()


def main(folder: Path, num_runs: int = 300) -> None:
    """Measures all times, prints them as JSON, and saves screenshots of the pages in the folder."""
    folder.mkdir(parents=True)
    (folder / "many.yaml").write_text(f"{SWEEP}seeds: {list(range(num_runs // 2))}\n")
    found: dict[str, Any] = {"sweep": seconds(lambda: command(folder, "sweep", "many.yaml", "--local"), 1)}
    client = mlflow.MlflowClient(tracking_uri(OutputFolder(folder / "runs").mlflow))
    experiment = client.get_experiment_by_name("many").experiment_id
    runs = list(client.search_runs([experiment], "tags.`supsup.kind` != 'sweep'", max_results=1000))
    assert len(runs) == num_runs, len(runs)
    top_up(client, runs)
    best = "tags.`supsup.kind` = 'evaluation' and metrics.accuracy > 0.1 and params.scenario = 'GNu'"
    order = ["metrics.accuracy DESC"]
    found["search"] = seconds(lambda: client.search_runs([experiment], best, max_results=1000, order_by=order))
    found["report"] = seconds(lambda: command(folder, "report"), 1)
    evaluated = client.search_runs([experiment], best, max_results=10, order_by=order)
    ids, names = [run.info.run_id for run in evaluated], [run.info.run_name for run in evaluated]
    pair = [run.data.tags["supsup.uid"].rpartition("/")[2] for run in evaluated[:2]]
    found["compare"] = seconds(lambda: command(folder, "compare", *pair), 1)
    home = f"/experiments/{experiment}/runs"
    pages = {
        "runs": (home, f"{num_runs + 1} matching runs"),
        "charts": (f"{home}?compareRunsMode=CHART", "Model metrics", "accuracy"),
        "run": (f"{home}/{ids[0]}", names[0], "task_inference_accuracy"),
        "run_charts": (f"{home}/{ids[0]}/model-metrics", "accuracy", "extra_00"),
        "compare_ten": (
            f"/compare-runs?runs={json.dumps(ids, separators=(',', ':'))}&experiments=[%22{experiment}%22]",
            "Comparing 10 Runs", "extra_00",
        ),
    }  # fmt: skip
    browser = Browser(folder)
    try:
        for name, (path, *words) in pages.items():
            found[f"page_{name}"] = seconds(lambda path=path, words=words: browser.show(path, *words))  # type: ignore[misc]
            browser.picture(folder / f"{name}.png")
    finally:
        browser.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *map(int, sys.argv[2:]))
