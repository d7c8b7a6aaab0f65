"""Writes the pages of a documentation folder from the results of sweeps.

The folder has a subfolder for each published sweep, with a page, figures and CSV files. The page of all published
accuracies is written from the CSV files of these subfolders, so sweeps of several outputs can be published one after
another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from orchestrator.base.files import write_atomically
from orchestrator.base.plain_values import Node
from orchestrator.base.wording import count
from orchestrator.results.csv_table import to_csv
from orchestrator.results.machines import ComputedOn
from orchestrator.results.report.cells import final_cells, paired_cells, published_cells
from orchestrator.results.report.files import picture
from orchestrator.results.report.markdown import EXPLANATION, literal, table_lines
from orchestrator.results.report.published import COLUMNS, Curve, curves
from orchestrator.results.report.sweep_files import sweep_text
from orchestrator.results.text_table import TextTable
from orchestrator.sweeps.sweep import Sweep
from supsup_core.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TABLES = ("final.csv", "summary.csv", "published.csv", "paired.csv")
"""The tables of a report that are published."""

_MOST_FINDINGS = 5
"""The largest number of differences between runs that the first section of a page lists."""

_PLACES: Node = {"data": None, "storage": None, "output": "runs", "tracking": None}
"""The settings that name places on a machine, with their defaults. Pages do not contain them."""

_PUBLISHED_PAGE = "published.md"


@dataclass(frozen=True)
class Publication:
    """The content of the page of one sweep.

    `tables`: the report's tables by file name. `figures`: figures by file name without suffix. `captions`: a caption
    for each figure. `computed`: the runs by their machine kinds. `cost`: a line with the time of the report and the
    total time that workers spent. `num_incomplete`: the number of runs that lack evaluation points.
    """

    sweep: Sweep
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Figure]
    captions: Mapping[str, str]
    computed: Sequence[ComputedOn]
    cost: str
    num_incomplete: int

    def write(self, folder: Path) -> Path:
        """Writes the page of the sweep, and writes the page of all published accuracies again.

        Returns the path of the sweep's page. Raises InputError if `folder` or one of its tables cannot be used.
        """
        own = folder / self.sweep.config.name
        contents = {f"{stem}.png": picture(figure, "png") for stem, figure in self.figures.items()}
        contents |= {name: to_csv(self.tables[name]).encode() for name in _TABLES}
        contents["sweep.yaml"] = sweep_text(self.sweep.portable_config | _PLACES, None).encode()
        contents["report.md"] = self._page().encode()
        try:
            own.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                write_atomically(own / name, content)
            write_atomically(folder / _PUBLISHED_PAGE, published_page(folder).encode())
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another folder"
            ) from None
        return own / "report.md"

    def _page(self) -> str:
        """Returns the page: what was found, the figures, the tables, and how the results were made."""
        lines = [f"# {literal(self.sweep.config.name)}", ""]
        if self.num_incomplete:
            lines += [f"**Unfinished.** Runs that lack evaluation points: {self.num_incomplete}.", ""]
        lines += [f"- {literal(finding)}" for finding in findings(self.tables)] + [""]
        for stem in self.figures:
            lines += [f"![{self.captions[stem]}]({stem}.png)", "", f"*{self.captions[stem]}*", ""]
        final = table_lines(final_cells(self.tables["final.csv"]))
        lines += ["## Results", "", *final, "", *EXPLANATION.splitlines(), ""]
        sections = {
            "Comparison with published results": published_cells(self.tables["published.csv"]),
            "Seed by seed": paired_cells(self.tables["paired.csv"]),
        }
        for title, table in sections.items():
            if table.rows:
                lines += [f"## {title}", "", *table_lines(table), ""]
        lines += ["## How it was made", "", "```", "supsup sweep sweep.yaml", "```", ""]
        lines += ["[sweep.yaml](sweep.yaml) contains the settings that differ from the defaults.", ""]
        lines += [f"{literal(self.cost)}.", ""]
        for found in self.computed:
            runs = "all runs" if len(self.computed) == 1 else ", ".join(found.runs)
            lines += [f"- Computed on: {literal('; '.join(map(str, found.machines)))} ({literal(runs)})"]
        lines += ["- Data: " + ", ".join(f"[{name}]({name})" for name in _TABLES), ""]
        return "\n".join(lines)


def findings(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Returns sentences that say what a sweep has found: verdicts, and differences between runs that are decided.

    tables: the report's tables by file name. A difference is decided if its 95 % interval does not contain 0.
    """
    found = []
    published = tables["published.csv"]
    if len(published):
        found.append(f"Comparison with published accuracies: {_counted(map(kind_of, published['verdict']))}.")
    else:
        found.append("No published accuracy belongs to a run of this sweep.")
    final = tables["final.csv"].sort_values("accuracy %", ascending=False)
    best, worst = final.iloc[0], final.iloc[-1]
    ends = [("Highest", best), ("Lowest", worst)] if len(final) > 1 else [("Highest", best)]
    found += [
        f"{which} accuracy: {row['accuracy %']:.2f} %, {row['run']}, after {count(row['tasks'], 'task')}."
        for which, row in ends
    ]
    paired = tables["paired.csv"].to_dict("records")
    decided = [row for row in paired if row["low"] > 0 or row["high"] < 0]
    for row in decided[:_MOST_FINDINGS]:
        side = "above" if row["difference"] > 0 else "below"
        found.append(
            f"After {count(row['tasks'], 'task')}, {row['run']} is {abs(row['difference']):.2f} percentage points "
            f"{side} {row['against']} (95 % interval {row['low']:+.2f} to {row['high']:+.2f}, {row['seeds']} seeds)."
        )
    if len(decided) > _MOST_FINDINGS:
        further = count(len(decided) - _MOST_FINDINGS, "further difference")
        found.append(f"The section on the comparison seed by seed shows {further}.")
    equal = [row for row in paired if row["low"] == row["high"] == 0]
    if equal:
        found.append(f"Equal to {equal[0]['against']} with every seed: {', '.join(row['run'] for row in equal)}.")
    if undecided := [row["run"] for row in paired if row not in decided and row not in equal]:
        found.append(f"The difference from {paired[0]['against']} is not decided for {', '.join(undecided)}.")
    return found


def kind_of(said: str) -> str:
    """Returns a verdict without its details, such as `not comparable`."""
    return said.partition(":")[0].partition(" (")[0]


def _counted(kinds: Iterable[str]) -> str:
    """Returns the numbers of verdicts as a list, such as `3 reproduced, 1 short`."""
    times = Counter(kinds)
    order = ("reproduced", "better", "short", "not decided", "unfinished", "not comparable", "not run", "no data")
    return ", ".join(f"{times[kind]} {kind}" for kind in sorted(times, key=order.index))


def published_page(folder: Path) -> str:
    """Returns the page of all published accuracies, from the tables `published.csv` in the subfolders of `folder`.

    Each published accuracy has one row for each comparable run. Without a comparable run, it has one row, whose verdict
    says why. Raises InputError if a table cannot be read, or if a curve has changed since a sweep was published.
    """
    measured = _read_tables(folder)
    rows: list[list[str]] = []
    kinds: list[str] = []
    for curve in curves():
        for n, theirs in curve.accuracy.items():
            for row in _rows_of(curve, n, measured):
                kinds.append(kind_of(row[-1]))
                rows.append(
                    [curve.source, curve.name, str(n), f"{theirs:.2f}", curve.confidence.replace("_", "-"), *row]
                )
    headings = [
        "source", "curve", "tasks", "published %", "known how", "ours %", "difference", "seeds", "sweep", "verdict",
    ]  # fmt: skip
    text = f"""\
# All published accuracies

{sum(len(curve.accuracy) for curve in curves())} published accuracies, {len(rows)} comparisons: {_counted(kinds)}.

The difference is our accuracy minus the published accuracy, in percentage points, with its 95 % interval over seeds. A
result is *reproduced* if the whole interval is within the tolerance, *better* if the interval is above the tolerance,
and *short* if it is below. Otherwise the seeds decide nothing. A run is compared only if each of its settings is the
published one, or is named as free in `orchestrator/results/report/published.yaml`, with a reason.
*quoted*: the authors state the number. *digitised*: the number was read off a plot. *second-hand*: the number was read
in a later paper. The command `supsup report SWEEP --publish docs/results` writes this page.
"""
    return "\n".join([text, *table_lines(TextTable(headings, rows)), ""])


def _rows_of(curve: Curve, num_learned: int, measured: pd.DataFrame) -> list[list[str]]:
    """Returns the last cells of the rows of one published accuracy: ours, difference, seeds, sweep and verdict."""
    compared = measured[(measured["source"] == curve.source) & (measured["curve"] == curve.name)]
    outdated = compared[compared["key"] != curve.key]
    if len(outdated):
        sweep = outdated["sweep"].iloc[0]
        raise InputError(
            f"{sweep}: was compared with other settings or accuracies of {curve.source}, {curve.name}, than "
            "published.yaml has now; publish the sweep again"
        )
    same = compared[compared["tasks"] == num_learned]
    comparable = same[~same["verdict"].str.startswith("not comparable")]
    comparable = comparable.drop_duplicates(["run", "ours %", "low", "high", "seeds"])  # one run in two sweeps
    rows = []
    for row in comparable.to_dict("records"):
        interval = "" if pd.isna(row["low"]) else f" ({row['low']:+.2f} to {row['high']:+.2f})"
        rows.append(
            [f"{row['ours %']:.2f}", f"{row['difference']:+.2f}{interval}", str(row["seeds"]),
             f"{row['sweep']}: {row['run']}", row["verdict"]]
        )  # fmt: skip
    if rows:
        return rows
    if len(same):
        other = same.iloc[0]
        return [["–", "–", "–", f"{other['sweep']}: {other['run']}", other["verdict"]]]
    return [["–", "–", "–", "–", f"no data: {curve.unavailable}" if curve.unavailable else "not run"]]


def _read_tables(folder: Path) -> pd.DataFrame:
    """Returns the published comparisons of all sweeps in a folder, with the sweep's name in the column `sweep`."""
    tables = [pd.DataFrame(columns=["sweep", *COLUMNS])]
    for path in sorted(folder.glob("*/published.csv")):
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); publish the sweep again") from None
        if missing := [column for column in COLUMNS if column not in table.columns]:
            raise InputError(f"{path}: has no column {missing[0]!r}; publish the sweep again")
        if len(table):
            tables.append(table.assign(sweep=path.parent.name))
    return pd.concat(tables) if len(tables) > 1 else tables[0]
