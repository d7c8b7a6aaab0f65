"""The report's page as a reader sees it, on a screen and on a narrow one."""

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
    """The page of a sweep of two methods and two seeds, ten tasks each, of which something is published."""
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


def test_the_page_tells_results_and_the_papers_and_fits_the_screen(page: Path, browser: webdriver.Chrome) -> None:
    lone = page.parents[4] / "alone.html"
    lone.write_bytes(page.read_bytes())  # it needs nothing that stood beside it
    for width in (1280, 420):
        browser.set_window_size(width, 900)
        browser.get(lone.as_uri())
        text = browser.find_element("tag name", "body").text
        for words in ("Results", "Beside the paper", "Seed by seed", "How it was made", "SupSup GNu one_shot entropy"):
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
