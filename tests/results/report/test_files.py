"""Writing the files of a report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from orchestrator.results.report.files import ReportFiles


def test_every_file_is_written_and_replaces_its_previous_version(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    for value in (1, 2):
        table = pd.DataFrame({"run": ["a"], "value": [value]})
        files = ReportFiles({"points.csv": table}, {"plot": Figure()}, {"report.md": f"# {value}"})
        written = files.write(folder)
    assert [path.name for path in written] == ["points.csv", "plot.png", "plot.svg", "report.md"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in written}
    assert (folder / "points.csv").read_text() == "run,value\na,2\n"
    assert (folder / "report.md").read_text() == "# 2"
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "plot.svg").read_text()
