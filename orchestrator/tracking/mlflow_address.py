"""Configures MLflow, and computes the tracking URI of a sweep's MLflow runs.

Does not import MLflow or torch, which would take seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.base.output_folder import MLflowFolder
from orchestrator.base.wording import first_line
from supsup_core.errors import SupSupError

if TYPE_CHECKING:
    from orchestrator.sweeps.sweep import Sweep


class WriterBusyError(SupSupError):
    """Another process or machine writes the MLflow runs of the sweep."""


def configure_mlflow() -> None:
    """Sets the environment variables that configure MLflow, unless the user has set them.

    Call this function before this process starts a thread and before MLflow is imported. If a variable is added to the
    environment while another thread reads the environment in C code, the process can crash.
    """
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # fail at once, because the Monitor retries
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # in seconds
    }.items():
        os.environ.setdefault(name, value)


def tracking_uri(folder: MLflowFolder) -> str:
    """Returns the tracking URI of an output's own MLflow database, for this process and the processes it starts."""
    return sqlite_uri(folder.path, folder.database.name)


def sqlite_uri(folder: Path, name: str) -> str:
    """Returns the URI of an SQLite database in a folder, in the form that MLflow reads.

    MLflow cannot read a path that contains `?`, `#` or `%`. For such a folder, the URI names a symbolic link to the
    folder. The link is deleted when this process ends.
    """
    return f"sqlite:///{_link_to(folder) if set('?#%') & set(str(folder)) else folder}/{name}"


@functools.cache
def _link_to(folder: Path) -> Path:
    home = Path(tempfile.mkdtemp(prefix="supsup-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    link = home / "mlflow"
    link.symlink_to(folder, target_is_directory=True)
    return link


def tracking_uri_of(sweep: Sweep) -> str:
    """Returns the tracking URI of a sweep: the server given by `tracking=`, or the database of the sweep's output."""
    return sweep.config.tracking or tracking_uri(sweep.output.mlflow)


@contextlib.contextmanager
def explained(sweep: Sweep) -> Iterator[None]:
    """Converts any error of the `with` block to a SupSupError, which names the command that repeats the writing."""
    try:
        yield
    except SupSupError:
        raise
    except Exception as error:  # MLflow, its database, its server or the network may fail; results do not need them
        raise SupSupError(
            f"the runs could not be written to MLflow ({first_line(error)}); when MLflow works again, "
            f"`{sweep.command('report')}` writes the missing data"
        ) from error
