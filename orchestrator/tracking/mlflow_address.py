"""Where MLflow keeps what a sweep writes. Does not load MLflow, which takes seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from orchestrator.base.output_folder import MLflowFolder
from orchestrator.base.wording import first_line
from orchestrator.sweeps.sweep import Sweep
from supsup_core.errors import SupSupError


def tracking_uri(folder: MLflowFolder) -> str:
    """The tracking URI of an output's own store."""
    return f"sqlite:///{folder.database}"


def tracking_uri_of(sweep: Sweep) -> str:
    """Where a sweep's runs are written: the server that it names, or the store of its output."""
    return sweep.config.tracking or tracking_uri(sweep.output.mlflow)


@contextlib.contextmanager
def explained(sweep: Sweep) -> Iterator[None]:
    """Turn whatever keeps MLflow from being written into a SupSupError with a remedy."""
    try:
        yield
    except SupSupError:
        raise
    except Exception as error:  # of MLflow, its database, its server, the network: the results stand without it
        raise SupSupError(
            f"MLflow could not be written ({first_line(error)}); once it can be, "
            f"`{sweep.command('report')}` writes what is missing"
        ) from error
