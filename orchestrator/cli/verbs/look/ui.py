"""`supsup ui`."""

from __future__ import annotations

import click

from orchestrator.cli.arguments import PORT, Words, example, words
from orchestrator.sweeps.sweep_record import check_output
from orchestrator.tracking import ui_server


@click.command(epilog=example("supsup ui output=runs --port 5000"))
@words("[output=DIR]", "output", most=0)
@PORT
def ui(words: Words, port: int) -> int:
    """Serve the MLflow pages of an output on this machine.

    Prints the address to open in a browser, and runs until Ctrl-C. Only this machine can connect (127.0.0.1).
    """
    check_output(words.output)
    return ui_server.serve(words.output, port)
