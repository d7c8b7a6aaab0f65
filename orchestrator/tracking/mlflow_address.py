"""Where MLflow keeps the runs of a sweep. Loads neither MLflow nor torch, which take seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.base.output_folder import MLflowFolder
from orchestrator.base.wording import first_line
from supsup_core.errors import SupSupError

if TYPE_CHECKING:
    from orchestrator.sweeps.sweep import Sweep


def tracking_uri(folder: MLflowFolder) -> str:
    """The tracking URI of an output's own store."""
    return f"sqlite:///{folder.database}"


def tracking_uri_of(sweep: Sweep) -> str:
    """The tracking URI of a sweep: the server that it names, or the store of its output."""
    return sweep.config.tracking or tracking_uri(sweep.output.mlflow)


@contextlib.contextmanager
def explained(sweep: Sweep) -> Iterator[None]:
    """Replace any error of writing to MLflow by a SupSupError that names the remedy."""
    try:
        yield
    except SupSupError:
        raise
    except Exception as error:  # of MLflow, its database, its server or the network; the results do not depend on it
        raise SupSupError(
            f"MLflow could not be written ({first_line(error)}); once it can be, "
            f"`{sweep.command('report')}` writes what is missing"
        ) from error
