"""The report's HTML page. tests/browser opens one in a browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from orchestrator.results.machines import ComputedOn
from orchestrator.results.report.page import Page, render
from orchestrator.results.text_table import TextTable
from orchestrator.sweeps.sweep import open_sweep
from tests.records.samples import ENVIRONMENT, ONE_KIND, OTHER_KIND

NOTHING = TextTable(["run"], [])


@pytest.fixture
def page(sweep_file: Callable[..., Path]) -> Page:
    return Page(
        sweep=open_sweep(sweep_file(), []),
        final=TextTable(["run", "accuracy %"], [["<SupSup> & GNu", "93.67"]]),
        published=NOTHING,
        paired=NOTHING,
        search=NOTHING,
        figures={"A caption": Figure()},
        tables=["points.csv", "final.csv"],
        computed=[ComputedOn(("a", "b"), (ONE_KIND,))],
        environments=[ENVIRONMENT, ENVIRONMENT, replace(ENVIRONMENT, processor="another")],
        num_incomplete=0,
        num_runs=2,
        cost="two hours",
    )


def test_a_page_holds_its_results_pictures_settings_and_machines(page: Page) -> None:
    html = render(page)
    assert "&lt;SupSup&gt; &amp; GNu" in html
    assert "<SupSup>" not in html
    assert html.count('<img src="data:image/png;base64,') == 1
    assert "two hours" in html
    assert '<a href="points.csv">points.csv</a>, <a href="final.csv">final.csv</a>.' in html
    assert "num_tasks: 3" in html
    assert html.count("processor: x86_64") == 1  # equal machines are listed once
    assert "processor: another" in html
    assert f"Computed on one machine kind: all runs ({ONE_KIND})" in html
    assert "More than one machine kind" not in html


def test_a_page_names_the_runs_that_several_machine_kinds_computed(page: Page) -> None:
    computed = [ComputedOn(("<a>", "b"), (ONE_KIND, OTHER_KIND)), ComputedOn(("c", "d"), (OTHER_KIND,))]
    html = render(replace(page, computed=computed))
    assert "<strong>More than one machine kind:</strong> &lt;a&gt;, b. Note: results of one machine kind" in html
    assert f"<li>{ONE_KIND}</li><li>{OTHER_KIND}</li>" in html
    assert f"Computed on one machine kind: c, d ({OTHER_KIND})" in html


def test_a_section_without_rows_is_left_out(page: Page) -> None:
    html = render(page)
    for title in ("Trials", "Comparison with the paper", "Seed by seed", "Unfinished", "duplicates"):
        assert title not in html
    full = TextTable(["run", "verdict"], [["a", "short by far"]])
    html = render(replace(page, published=full, paired=full, search=full, num_incomplete=1))
    for title in ("Trials", "Comparison with the paper", "Seed by seed", "Unfinished"):
        assert title in html
    assert "1 of 2 runs" in html
    assert f"supsup resume {page.sweep.sweep_id}" in html
    assert '<td class="words short">short by far</td>' in html
    final = TextTable(["run", "duplicates"], [["a", "0"]])
    assert "already had a mask" in render(replace(page, final=final))
