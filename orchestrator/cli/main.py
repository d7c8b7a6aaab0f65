"""Defines the command `supsup`: its help, and the messages and exit codes of errors."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sqlite3
import sys

import click

from orchestrator.base.files import ensure_home, working_folder
from orchestrator.base.library_internals import lacks_memory
from orchestrator.base.wording import one_line, say
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.terminal import LostStreamError, discard, prepare_streams, print_warnings
from orchestrator.cli.verb_table import LazyGroup
from orchestrator.results.report_settings import use_own_settings
from orchestrator.tracking.mlflow_address import configure_mlflow
from supsup_core.errors import InputError, MachineError, SupSupError

_MOST_CHARACTERS = 2000
"""The largest length of an error message. The middle of a longer message is left out."""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""
    \b
    Examples:
      supsup sweep sweeps/quickstart.yaml
      supsup plan sweeps/fig07_permuted_lenet.yaml benchmark.num_tasks=10
      supsup resume
      supsup evaluate quickstart inference.rule=binary

    `supsup VERB --help` explains one verb.
    """,
)
@click.version_option(package_name="supsup", prog_name="supsup")
def cli() -> None:
    """Continual learning of thousands of tasks with SupSup: plan, run, resume and compare sweeps.

    Exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted (finished work is committed).
    """


def main() -> None:
    """Runs the console script `supsup`. If the user can fix an error, prints it on one line and exits with code 2."""
    atexit.register(gc.freeze)  # skips garbage collection at exit, which takes a second with MLflow and Ray
    prepare_streams()
    print_warnings()
    use_own_settings()
    configure_mlflow()
    try:
        if working_folder() is None:  # importing a library would fail there
            raise InputError("the current folder was deleted; change to another folder")
        ensure_home()
        code = cli.main(prog_name="supsup", standalone_mode=False)
        sys.stdout.flush()
    except LostStreamError as error:
        discard(sys.stdout)
        code = ExitCode.FAILED
        if error.errno != errno.EPIPE:  # a reader may end before the command, as `head` does
            _fail(f"standard output cannot be written ({error.strerror}); free disk space, or print to another file")
    except (click.exceptions.Abort, KeyboardInterrupt):
        _fail("interrupted; finished work is committed. Continue an interrupted sweep with: supsup resume")
        code = ExitCode.INTERRUPTED
    except click.UsageError as error:
        verb = error.ctx.command_path if error.ctx is not None else "supsup"
        code = _fail(f"{error.format_message()} (see {verb} --help)")
    except MachineError as error:
        _fail(str(error))
        code = ExitCode.FAILED
    except (click.ClickException, SupSupError) as error:
        code = _fail(error.format_message() if isinstance(error, click.ClickException) else str(error))
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        code = _fail(
            f"there is not enough memory ({error}); lower net.num_outputs, net.width, training.batch_size or "
            "resources.num_workers"
        )
    except (OSError, sqlite3.Error) as error:  # for example a full disk, or a limit of this machine
        _fail(f"{_fault(error)}; correct the cause, then run the command again")
        code = ExitCode.FAILED
    sys.exit(code)


def _name(path: object) -> str:
    """Returns the path that an OSError names, as text."""
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else str(path)


def _fail(message: str) -> ExitCode:
    """Prints a message as one line on standard error. Returns the exit code of bad input."""
    line = one_line(message)
    if len(line) > _MOST_CHARACTERS:
        line = f"{line[: _MOST_CHARACTERS // 2]} … {line[-_MOST_CHARACTERS // 2 :]}"
    say(f"supsup: {line}", file=sys.stderr)
    return ExitCode.BAD_INPUT


def _fault(error: OSError | sqlite3.Error) -> str:
    """Returns an error as text: the file that the error concerns, if any, and what is wrong."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{_name(error.filename)}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    main()
