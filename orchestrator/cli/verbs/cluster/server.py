"""`supsup server`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.arguments import PORT, example
from orchestrator.tracking import team_server
from supsup_core.input_files import user_path


@click.command(epilog=example("supsup server /srv/mlflow --artifacts s3://bucket/mlflow"))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="server")
@PORT
@click.option(
    "--artifacts", metavar="URL", help="Where MLflow stores files, such as s3://… (default: FOLDER/artifacts)."
)
def server(folder: Path, port: int, artifacts: str | None) -> int:
    """Run an MLflow server for several people, with passwords.

    FOLDER (default: server) holds all data of the server, including a PostgreSQL database. A server that is started
    again on the same folder continues with this data. The server runs until Ctrl-C.
    """
    return team_server.serve(user_path(folder), port, artifacts)
