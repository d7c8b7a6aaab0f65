"""`supsup server`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.arguments import PORT, example
from orchestrator.tracking import team_server


@click.command(epilog=example("supsup server /srv/mlflow --artifacts s3://bucket/mlflow"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="server")
@PORT
@click.option("--artifacts", metavar="URL", help="Where to keep artifacts, such as s3://… (default: in FOLDER).")
def server(folder: Path, port: int, artifacts: str | None) -> int:
    """Run an MLflow server for several people, with passwords.

    FOLDER (default: server) holds everything, with a PostgreSQL database of its own. Started again on the same folder,
    the server continues with what is there. Runs until Ctrl-C.
    """
    return team_server.serve(folder.expanduser().absolute(), port, artifacts)
