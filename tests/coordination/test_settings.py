"""The settings of a training group, which its coordinator and its workers share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orchestrator.coordination.settings import GroupSettings, StorageSettings


def test_stores_of_an_output_without_a_storage_are_only_folders(group: GroupSettings) -> None:
    store, masks = group.open_store(), group.open_masks()
    assert (store.storage, masks.storage) == (None, None)
    assert store.folder == group.folder.sweep.output.store
    assert masks.folder == group.folder.masks


def test_stores_of_an_output_with_a_storage_are_caches_of_the_storage(group: GroupSettings, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/stored"
    storage = StorageSettings(
        store=f"{url}/store", masks=f"{url}/g/masks", group=f"{url}/g", output_id="aaaaaaaa", cache_bytes=10,
        snapshot_every=1.0,
    )  # fmt: skip
    settings = replace(group, storage=storage)
    for store, folder, where in (
        (settings.open_store(), group.open_store().folder, storage.store),
        (settings.open_masks(), group.open_masks().folder, storage.masks),
    ):
        assert store.storage is not None
        assert (store.storage.url, store.folder) == (where, folder)


def test_the_number_of_workers_is_the_one_chosen_at_launch(group: GroupSettings) -> None:
    assert group.num_workers == group.environment.num_workers == 2
