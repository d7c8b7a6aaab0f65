"""Draws the packages and the imports between them as docs/architecture_packages.svg.

    python docs/scripts/package_picture.py            # writes the picture
    python docs/scripts/package_picture.py --check    # exits 1 when the committed picture is not current

Rows are the layers of the import-linter contracts in pyproject.toml. Arrows come from the real import graph (grimp). An
arrow that a chain of others implies is left out (transitive reduction). The output depends on nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

TOP = Path(__file__).parents[2]
PICTURE = TOP / "docs" / "architecture_packages.svg"

PANELS = {"orchestrator": "orchestrator: the platform", "supsup_core": "supsup_core: the science"}
"""The two top packages, left to right, and the titles of their panels."""

PLACES: dict[str, tuple[float, str]] = {
    "orchestrator.cli": (1, "one file a verb"),
    "orchestrator.tracking": (0, "MLflow"),
    "orchestrator.cluster": (2, "Ray clusters, jobs"),
    "orchestrator.results": (0, "status, report"),
    "orchestrator.execution": (1, "Ray, workers"),
    "orchestrator.nns": (0.5, "rounds, versions"),
    "orchestrator.coordination": (0, "jobs, coordinator"),
    "orchestrator.sweeps": (2, "sweep, groups"),
    "orchestrator.spec": (2, "sweep files"),
    "orchestrator.records": (1, "ledger, artifacts"),
    "orchestrator.base": (1, "files, keys, locks"),
    "supsup_core.evaluation": (0, "protocols, metrics"),
    "supsup_core.nns": (2.5, "allocation tests"),
    "supsup_core.inference": (1.5, "rules, objectives"),
    "supsup_core.methods": (1.5, "SupSup, baselines"),
    "supsup_core.training": (1.5, "loop, optimisers"),
    "supsup_core.tasks": (0.75, "permuted, split, …"),
    "supsup_core.datasets": (0.75, "MNIST, CIFAR, …"),
    "supsup_core.masks": (2, "bits, bank, codec"),
    "supsup_core.nets": (2, "LeNet, ResNet, …"),
    "supsup_core.kernels": (3, "numba, oneDNN"),
    "supsup_core.scenarios": (0, "GG, GNs, GNu, NNs"),
    "supsup_core.later_fields": (1, "added config keys"),
    "supsup_core.field_limits": (2, "limits of keys"),
    "supsup_core.seeding": (3, "random numbers"),
    "supsup_core.registry": (0.75, "names to classes"),
    "supsup_core.input_files": (2.25, "users' files"),
    "supsup_core.errors": (0.75, "InputError, …"),
}
"""Column of each package in its panel, and a few words about it. A package without an entry stands in column 0."""

COLUMN, ROW, WIDTH, HEIGHT, LEFT, TITLE = 122, 60, 112, 38, 10, 50
"""Pixels: distance of columns and rows, size of a box, left margin, and height of the title."""

Edges = set[tuple[str, str]]


@dataclass(frozen=True)
class Panel:
    """One top package: its layers from the top down, each a list of packages, and the imports between these."""

    name: str
    layers: list[list[str]]
    edges: Edges
    left: float

    def centre(self, package: str) -> tuple[float, float]:
        """The middle of a package's box, in pixels."""
        row = next(number for number, layer in enumerate(self.layers) if package in layer)
        column = PLACES.get(package, (0, ""))[0]
        return self.left + column * COLUMN + WIDTH / 2, TITLE + row * ROW + ROW / 2


def read_layers(top: str) -> list[list[str]]:
    """The layers of the layers contract of a top package, from the top down."""
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers" and c["containers"] == [top])
    return [[f"{top}.{name.strip()}" for name in layer.split("|")] for layer in layers]


def read_edges() -> Edges:
    """Pairs (importer, imported) of packages below the two top packages; single modules there count as packages."""
    graph = grimp.build_graph(*PANELS, cache_dir=None)
    edges = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = tuple(".".join(name.split(".")[:2]) for name in (module, imported))
            if pair[0] != pair[1] and all("." in name for name in pair):
                edges.add((pair[0], pair[1]))
    return edges


def reduce(edges: Edges) -> Edges:
    """The edges that no chain of other edges implies. The graph must have no cycle."""
    successors: dict[str, set[str]] = {}
    for source, target in edges:
        successors.setdefault(source, set()).add(target)

    def reachable(start: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(start)
        while waiting:
            package = waiting.pop()
            if package not in found:
                found.add(package)
                waiting.extend(successors.get(package, ()))
        return found

    return {(source, target) for source, target in edges if target not in reachable(successors[source] - {target})}


def check_directions(panels: Mapping[str, Panel], edges: Edges) -> None:
    """ValueError for an import that points up, sideways, or from the science to the platform."""
    for source, target in sorted(edges):
        tops = source.split(".")[0], target.split(".")[0]
        if tops == ("supsup_core", "orchestrator"):
            raise ValueError(f"{source} imports {target}: the science must not know the platform")
        if tops[0] == tops[1] and panels[tops[0]].centre(source)[1] >= panels[tops[0]].centre(target)[1]:
            raise ValueError(f"{source} imports {target}, which is not on a layer below it; see `lint-imports`")


def draw() -> str:
    """The picture as SVG text."""
    edges = read_edges()
    panels: dict[str, Panel] = {}
    left: float = LEFT
    for top in PANELS:
        own = {(a, b) for a, b in edges if a.startswith(f"{top}.") and b.startswith(f"{top}.")}
        panels[top] = Panel(top, read_layers(top), own, left)
        columns = 1 + max(PLACES.get(package, (0, ""))[0] for layer in panels[top].layers for package in layer)
        left += columns * COLUMN + 3 * LEFT
    check_directions(panels, edges)
    width = left - 3 * LEFT
    height = TITLE + ROW * max(len(panel.layers) for panel in panels.values()) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>Packages and the imports between them</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#33507a"/></marker></defs>',
        f'<rect width="{width:g}" height="{height}" fill="#ffffff"/>',
    ]
    for panel in panels.values():
        parts += draw_panel(panel)
    first, second = panels.values()
    end_of_title = first.left + 3 * COLUMN - 20
    parts += [
        arrow(f"M{end_of_title - 110:g} 20 L{second.left - 4:g} 20"),
        text(end_of_title - 60, 14, "imports", 11, "#33507a"),
        text(width / 2, height - 10, "An arrow points from a package to one that it imports. "
             "Arrows that a chain of others implies are left out.", 11, "#444444"),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def draw_panel(panel: Panel) -> list[str]:
    """The rows, arrows and boxes of a panel."""
    columns = 1 + max(PLACES.get(package, (0, ""))[0] for layer in panel.layers for package in layer)
    parts = [text(panel.left, 25, PANELS[panel.name], 15, "#111111", anchor="start", bold=True)]
    for row in range(len(panel.layers)):
        fill = "#f3f5f9" if row % 2 else "#fafbfd"
        parts.append(
            f'<rect x="{panel.left - 6:g}" y="{TITLE + row * ROW}" width="{columns * COLUMN:g}" height="{ROW}" '
            f'fill="{fill}"/>'
        )
    for source, target in sorted(reduce(panel.edges)):
        (x1, y1), (x2, y2) = panel.centre(source), panel.centre(target)
        y1, y2 = y1 + HEIGHT / 2, y2 - HEIGHT / 2
        bend = min(12.0, (y2 - y1) / 3)
        parts.append(arrow(f"M{x1:g} {y1:g} C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"))
    for layer in panel.layers:
        for package in layer:
            x, y = panel.centre(package)
            parts += [
                f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="5" '
                'fill="#ffffff" stroke="#33507a" stroke-width="1.2"/>',
                text(x, y - 2, package.split(".")[1], 13, "#111111", bold=True),
                text(x, y + 12, PLACES.get(package, (0, ""))[1], 10, "#555555"),
            ]
    return parts


def arrow(path: str) -> str:
    """One arrow along an SVG path."""
    return f'<path d="{path}" fill="none" stroke="#33507a" stroke-width="1.3" marker-end="url(#head)"/>'


def text(
    x: float, y: float, words: str, size: int, fill: str, *, anchor: str = "middle", bold: bool = False
) -> str:  # fmt: skip
    """One line of text, centred at x unless the anchor says otherwise; y is its base line."""
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"{weight}>'
        f"{escape(words)}</text>"
    )


def main() -> int:
    """Write the picture, or check it; returns the exit code."""
    parser = argparse.ArgumentParser(description="Draw the packages and the imports between them.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the picture is not current")
    asked = parser.parse_args()
    drawn = draw()
    if not asked.check:
        PICTURE.write_text(drawn)
        return 0
    if PICTURE.exists() and PICTURE.read_text() == drawn:
        return 0
    print(
        f"{PICTURE.relative_to(TOP)}: not current, because imports have changed; "
        "draw it again: .venv/bin/python docs/scripts/package_picture.py",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
