"""Writes the files of a report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.base.files import write_atomically
from orchestrator.results.csv_table import to_csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DPI = 150
"""The resolution of a report's PNG pictures, in dots per inch."""


@dataclass(frozen=True)
class ReportFiles:
    """The content of a report's files. `tables` (written as CSV) and `texts`: maps from file name to content.
    `pictures`: maps the file name without suffix to the figure."""

    tables: Mapping[str, pd.DataFrame]
    pictures: Mapping[str, Figure]
    texts: Mapping[str, str]

    def write(self, folder: Path) -> list[Path]:
        """Write all files into a folder, each atomically, and return their paths. Pictures become PNG and SVG files."""
        contents = {name: to_csv(table).encode() for name, table in self.tables.items()}
        for stem, figure in self.pictures.items():
            contents |= {f"{stem}.{suffix}": picture(figure, suffix) for suffix in ("png", "svg")}
        contents |= {name: text.encode() for name, text in self.texts.items()}
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
        return [folder / name for name in contents]


def picture(figure: Figure, suffix: str) -> bytes:
    """Returns a figure as a picture in the format `suffix`, such as `png` or `svg`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format=suffix)
    return buffer.getvalue()
