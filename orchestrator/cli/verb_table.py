"""The table of all verbs, and the click group that loads the file of a verb only when the verb is used.

`supsup --help` prints the summaries of this table and imports no verb, so it answers at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import NamedTuple

import click


class Verb(NamedTuple):
    """`module`: where the verb's command is, below `orchestrator.cli.verbs`. `summary`: its line in `supsup --help`."""

    module: str
    summary: str


SECTIONS: Mapping[str, Mapping[str, Verb]] = {
    "Run sweeps": {
        "sweep": Verb("run.sweep", "Run a sweep file to its end."),
        "resume": Verb("run.resume", "Continue a sweep from what is on disk or in its storage."),
        "evaluate": Verb("run.evaluate", "Evaluate a sweep's trained masks with another inference."),
        "fork": Verb("run.fork", "Start a new NNs sweep from a committed state of another."),
        "retry": Verb("run.retry", "Retry a run that failed or was cancelled, or some of its tasks."),
    },
    "Plan sweeps and read results": {
        "plan": Verb("look.plan", "Show a sweep file's runs, and their time, disk and memory."),
        "sweeps": Verb("look.sweeps", "List the sweep files of a folder, and what each costs here."),
        "status": Verb("look.status", "Show what is done, running and failed, and the time left."),
        "report": Verb("look.report", "Write the tables, figures and HTML page of a sweep."),
        "compare": Verb("look.compare", "Show runs side by side: their settings and their metrics."),
        "decisions": Verb("look.decisions", "List the decisions of NNs runs about every segment."),
        "export": Verb("look.export", "Log a finished run as an MLflow model."),
        "ui": Verb("look.ui", "Serve the MLflow pages of an output on this machine."),
    },
    "Operate running sweeps": {
        "logs": Verb("operate.logs", "Show the log of a sweep or job, and follow it while it runs."),
        "drain": Verb("operate.drain", "End a running sweep or job after the work under way."),
        "stop": Verb("operate.stop", "Stop a running sweep or job now; finished work is committed."),
        "cancel": Verb("operate.cancel", "Give up a run, or some of its tasks, while others continue."),
    },
    "Look after outputs and storages": {
        "fetch": Verb("storage.fetch", "Bring sweeps from a storage to an output on this machine."),
        "gc": Verb("storage.gc", "List, or delete, files that no sweep of an output needs."),
        "fsck": Verb("storage.fsck", "Verify all files of an output, and repair damaged ones."),
    },
    "Use clusters and servers": {
        "submit": Verb("cluster.submit", "Run a sweep file as a job of a Ray cluster."),
        "cluster": Verb("cluster.cluster_check", "Check the file that `ray up` starts a Ray cluster from."),
        "server": Verb("cluster.server", "Run an MLflow server for several people, with passwords."),
    },
}
"""All verbs, by the sections of the help."""

VERBS: Mapping[str, Verb] = {name: verb for section in SECTIONS.values() for name, verb in section.items()}
"""All verbs, by name."""


def load_command(name: str) -> click.Command:
    """The command of a verb, from its file."""
    module = importlib.import_module(f"orchestrator.cli.verbs.{VERBS[name].module}")
    command: click.Command = getattr(module, name)
    return command


class LazyGroup(click.Group):
    """The group of all verbs of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb; None where there is no such verb."""
        return load_command(cmd_name) if cmd_name in VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of the help. No verb is loaded for it."""
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, verb.summary) for name, verb in verbs.items()], col_spacing=2)
