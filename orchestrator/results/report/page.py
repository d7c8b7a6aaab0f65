"""Renders a report as one self-contained HTML page, which needs neither a network nor other files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import jinja2
import yaml

from orchestrator.base.keys import canonical
from orchestrator.base.plain_values import to_node
from orchestrator.records.rows import LaunchEnvironment
from orchestrator.results.machines import MEANING, ComputedOn
from orchestrator.results.report.files import picture
from orchestrator.results.text_table import TextTable
from orchestrator.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Page:
    """The content of the page.

    `published`, `paired`, `search`: tables, which have no rows if there is nothing to show. `figures`: the figures by
    caption. `tables`: the names of the CSV files in the page's folder. `computed`: the runs by their machine kinds.
    `environments`: the machine and software that ran each training group. `num_incomplete`: the number of runs that
    lack evaluation points. `cost`: a line with the time of the report and the total time that workers spent.
    """

    sweep: Sweep
    final: TextTable
    published: TextTable
    paired: TextTable
    search: TextTable
    figures: Mapping[str, Figure]
    tables: Sequence[str]
    computed: Sequence[ComputedOn]
    environments: Sequence[LaunchEnvironment]
    num_incomplete: int
    num_runs: int
    cost: str


def render(page: Page) -> str:
    """Returns the page as HTML."""
    source = resources.files("orchestrator.results.report").joinpath("page.html.j2").read_text()
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    config = {key: value for key, value in page.sweep.portable_config.items() if value not in (None, {}, [])}
    environments = [to_node(environment) for environment in page.environments]
    different = {canonical(environment): environment for environment in environments}
    return template.render(
        title=page.sweep.config.name,
        sweep_id=page.sweep.sweep_id,
        cost=page.cost,
        num_incomplete=page.num_incomplete,
        num_runs=page.num_runs,
        final=page.final,
        published=page.published,
        paired=page.paired,
        search=page.search,
        nns="duplicates" in page.final.headings,
        figures=[{"caption": caption, "png": _png(figure)} for caption, figure in page.figures.items()],
        tables=page.tables,
        computed=page.computed,
        meaning=MEANING,
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        environment=yaml.safe_dump_all(different.values(), sort_keys=False, allow_unicode=True),
    )


def _png(figure: Figure) -> str:
    """Returns a figure as a PNG picture encoded in base64."""
    return base64.b64encode(picture(figure, "png")).decode()
