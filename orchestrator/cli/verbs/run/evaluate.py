"""`supsup evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from orchestrator.base.wording import count
from orchestrator.cli.arguments import Words, cluster_options, example, words
from orchestrator.cli.run_sweep import run
from orchestrator.records.group_state import GroupState
from orchestrator.records.object_storage import ASKING_SECONDS
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import Sweep, open_record
from orchestrator.sweeps.sweep_transfer import fetch_newest
from orchestrator.sweeps.training_groups import Group
from supsup_core.errors import InputError


@click.command(epilog=example("supsup evaluate quickstart inference.rule=binary inference.objective=energy"))
@words("SWEEP inference.KEY=VALUE... [output=DIR]", "output", least=1, has_overrides=True)
@cluster_options
def evaluate(words: Words, cluster: str | None) -> int:
    """Evaluate a sweep's trained masks with other inference settings.

    The command trains nothing. The results are new runs of the sweep, and the sweep's report shows them beside the
    other runs.
    """
    sweep = open_record(fetch_newest(None, words.output, words.name)).with_inference(words.overrides)
    groups = sweep.plan()
    missing = _count_missing(sweep, groups)
    if missing:
        untrained = f"{count(missing, 'shard')} {'is' if missing == 1 else 'are'} not trained"
        raise InputError(f"{sweep.sweep_id}: {untrained}; run `{sweep.command('resume')}` first")
    return run(sweep, cluster, groups)


def _count_missing(sweep: Sweep, groups: Sequence[Group]) -> int:
    """Returns how many shards are not trained yet. Groups that a search or the user has stopped do not count."""
    states = read_states(sweep.folder, sweep.planned)
    stored = set(replace(sweep, patience=ASKING_SECONDS).store)
    missing = 0
    for group in groups:
        state = states.get(group.group_id, GroupState())
        if state.given_up:
            continue
        if group.experiment.allocation is not None:
            missing += group.size.shards - state.done_shards()
        else:
            missing += sum(shard.key not in stored for shard in group.shards)
    return missing
