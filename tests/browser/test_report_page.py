"""The report's HTML page in a browser, on a wide and on a narrow screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

VARIANTS = {
    "SupSup": {"scenario": "GNu"},
    "BatchE": {"scenario": "GG", "method": {"name": "batch_e"}, "net.num_outputs": 10},
}


@pytest.fixture
def page(supsup: Callable[..., Any], sweep_file: Callable[..., Path], tmp_path: Path) -> Path:
    """The report page of a finished sweep: two methods, two seeds, ten tasks, and accuracies published for them."""
    file = sweep_file(
        scenario=None,
        variants=VARIANTS,
        seeds=[0, 1],
        benchmark={"name": "permuted", "base": "digits", "num_tasks": 10},
        net={"name": "lenet_300_100", "num_outputs": 100},
        training={"num_batches": 2},
        evaluation={"at": [5, 10]},
    )
    assert supsup("sweep", file, "--local").code == 0
    (found,) = tmp_path.glob("runs/sweeps/*/report/report.html")
    return found


def test_the_page_shows_our_and_published_results_and_fits_the_screen(page: Path, browser: webdriver.Chrome) -> None:
    lone = page.parents[4] / "alone.html"
    lone.write_bytes(page.read_bytes())  # the page needs no other file of the report
    for width in (1280, 420):
        browser.set_window_size(width, 900)
        browser.get(lone.as_uri())
        text = browser.find_element("tag name", "body").text
        titles = ("Results", "Comparison with the paper", "Seed by seed", "How it was made")
        for words in (*titles, "SupSup GNu one_shot entropy"):
            assert words in text
        assert "93.67" in text
        assert "not comparable: benchmark.base.name is digits, not mnist" in text
        sizes = browser.execute_script("return Array.from(document.images).map(i => i.naturalWidth)")
        assert len(sizes) == 2
        assert min(sizes) > 400
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.execute_script("return getComputedStyle(document.body).fontSize") == "16px"
    browser.execute_script("document.querySelector('details').open = true")
    assert "num_tasks: 10" in browser.find_element("tag name", "body").text
