"""Lists all verbs, and defines the click group that imports the file of a verb only when the verb is used.

`supsup --help` prints the summaries of this table and imports no verb, so this command is fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import NamedTuple

import click

from orchestrator.base.memory_limit import IMPORT_BYTES, require_memory


class Verb(NamedTuple):
    """One verb. `module`: the verb's module below `orchestrator.cli.verbs`.

    `summary`: the verb's line in `supsup --help`. `is_light`: whether the verb imports no heavy library such as torch.
    """

    module: str
    summary: str
    is_light: bool = False


SECTIONS: Mapping[str, Mapping[str, Verb]] = {
    "Run sweeps": {
        "sweep": Verb("run.sweep", "Run a sweep file to its end."),
        "resume": Verb("run.resume", "Continue a sweep from its output or its storage."),
        "evaluate": Verb("run.evaluate", "Evaluate a sweep's trained masks with other inference settings."),
        "fork": Verb("run.fork", "Start a new NNs sweep from a committed state of another sweep."),
        "retry": Verb("run.retry", "Retry a run that failed or was cancelled, or some of its tasks."),
    },
    "Plan sweeps and read results": {
        "plan": Verb("look.plan", "Show a sweep file's runs, and estimate time, disk and memory."),
        "sweeps": Verb("look.sweeps", "List the sweep files of a folder, and estimate their cost."),
        "status": Verb("look.status", "Show what is done, running or failed, and the time left.", is_light=True),
        "report": Verb("look.report", "Write the tables, figures and HTML page of a sweep."),
        "compare": Verb("look.compare", "Show runs side by side: their settings and their metrics."),
        "decisions": Verb("look.decisions", "List the decisions of NNs runs, one for each segment."),
        "export": Verb("look.export", "Log a finished run as an MLflow model."),
        "ui": Verb("look.ui", "Serve the MLflow pages of an output on this machine.", is_light=True),
    },
    "Operate running sweeps": {
        "logs": Verb("operate.logs", "Show and follow the log of a sweep or job.", is_light=True),
        "drain": Verb("operate.drain", "Stop a running sweep or job after the work in progress.", is_light=True),
        "stop": Verb("operate.stop", "Stop a running sweep or job now; finished work is committed.", is_light=True),
        "cancel": Verb("operate.cancel", "Cancel a run, or some of its tasks, while the sweep continues."),
    },
    "Look after outputs and storages": {
        "fetch": Verb("storage.fetch", "Download sweeps from a storage to an output on this machine.", is_light=True),
        "gc": Verb("storage.gc", "List or delete the files that no sweep of an output needs.", is_light=True),
        "fsck": Verb("storage.fsck", "Verify the ledgers and artifacts of an output, or repair them."),
    },
    "Use clusters and servers": {
        "submit": Verb("cluster.submit", "Run a sweep file as a job on a Ray cluster."),
        "cluster": Verb("cluster.cluster_check", "Check the file from which `ray up` starts a Ray cluster."),
        "server": Verb("cluster.server", "Run an MLflow server for several people, with passwords.", is_light=True),
    },
}
"""All verbs, by the sections of the help."""

VERBS: Mapping[str, Verb] = {name: verb for section in SECTIONS.values() for name, verb in section.items()}
"""All verbs, by name."""


def load_command(name: str) -> click.Command:
    """Imports the file of a verb, and returns the verb's click command.

    Raises MemoryLimitError if the limit of this process is too low for the libraries that the verb imports.
    """
    if not VERBS[name].is_light:
        require_memory(IMPORT_BYTES)
    module = importlib.import_module(f"orchestrator.cli.verbs.{VERBS[name].module}")
    command: click.Command = getattr(module, name)
    return command


class LazyGroup(click.Group):
    """The click group of all verbs. The group imports a verb's file only when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all verbs, in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command of a verb, or None if there is no such verb."""
        return load_command(cmd_name) if cmd_name in VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections of the help, without importing any verb."""
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, verb.summary) for name, verb in verbs.items()], col_spacing=2)
