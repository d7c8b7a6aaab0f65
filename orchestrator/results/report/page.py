"""The report as one page that needs nothing beside it: no network, no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING

import jinja2
import yaml

from orchestrator.base.keys import canonical
from orchestrator.base.plain_values import to_node
from orchestrator.records.rows import LaunchEnvironment
from orchestrator.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150


@dataclass(frozen=True)
class Shown:
    """A table for people: headings, and cells as text."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Page:
    """What the page tells. `figures`: by what is written below each; `tables`: names of the CSV files beside it;
    `environments`: what each training group's launch noted of its machine; `incomplete`: of `num_runs` runs."""

    sweep: Sweep
    final: Shown
    beside: Shown
    paired: Shown
    search: Shown
    figures: Mapping[str, Figure]
    tables: Sequence[str]
    environments: Sequence[LaunchEnvironment]
    incomplete: int
    num_runs: int
    made: str


def render(page: Page) -> str:
    """The page as HTML."""
    source = resources.files("orchestrator.results.report").joinpath("page.html.j2").read_text()
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    config = {key: value for key, value in asdict(page.sweep.config).items() if value not in (None, {}, [])}
    environments = [to_node(environment) for environment in page.environments]
    different = {canonical(environment): environment for environment in environments}
    return template.render(
        title=page.sweep.config.name,
        sweep_id=page.sweep.sweep_id,
        made=page.made,
        incomplete=page.incomplete,
        num_runs=page.num_runs,
        final=page.final,
        beside=page.beside,
        paired=page.paired,
        search=page.search,
        nns="duplicates" in page.final.headings,
        figures=[{"caption": caption, "png": _png(figure)} for caption, figure in page.figures.items()],
        tables=page.tables,
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        environment=yaml.safe_dump_all(different.values(), sort_keys=False, allow_unicode=True),
    )


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return base64.b64encode(buffer.getvalue()).decode()
