"""Downloads of datasets from mirrors."""

from dataclasses import replace
from pathlib import Path

import pytest

from supsup_core.datasets import mnist
from supsup_core.errors import InputError


def test_without_a_network_the_message_says_where_to_put_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mnist.MNIST, "files", replace(mnist.MNIST.files, mirrors=("http://127.0.0.1:9/",)))
    with pytest.raises(InputError, match=r"no mirror could deliver it .*; put .*data=DIR or SUPSUP_DATA"):
        mnist.MNIST().load(None)
    assert not list(tmp_path.rglob("*.gz"))


def test_a_download_from_a_mirror_is_verified(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mirrors = tuple(f"{folder.as_uri()}/" for folder in (tmp_path / "nowhere", data_root / "mnist"))
    monkeypatch.setattr(mnist.MNIST, "files", replace(mnist.MNIST.files, mirrors=mirrors))
    assert len(mnist.MNIST().load(None).test.labels) == 10000
    assert {path.name for path in (tmp_path / "supsup" / "mnist").iterdir()} == set(mnist.MNIST.files.md5)
