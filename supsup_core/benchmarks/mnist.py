"""MNIST from its four gzipped IDX files, verified against the published MD5 sums."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import torch

from supsup_core.benchmarks.base import BASES, Base, Dataset, Images
from supsup_core.errors import CorruptError, InputError

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of each file once unpacked."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def user_cache() -> Path:
    """Where datasets go when neither the config nor SUPSUP_DATA names a root."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supsup"


def unpack(path: Path) -> bytes:
    """The verified content of one gzipped file; CorruptError naming it and the remedy otherwise."""
    name = path.name.removesuffix(".gz")
    remedy = f"delete it and run again, or put a good copy of {path.name} there"
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptError(f"{path}: truncated or not gzip ({error}); {remedy}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != MD5[name]:
        raise CorruptError(f"{path}: wrong checksum (MD5 {found}, published {MD5[name]}); {remedy}")
    return content


def download(folder: Path, name: str) -> None:
    """Fetch one file from the first mirror that has it; it appears in `folder` only once verified."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.{os.getpid()}" / name
    partial.parent.mkdir(exist_ok=True)
    failures = []
    try:
        for mirror in MIRRORS:
            try:
                with urllib.request.urlopen(mirror + name, timeout=30) as answer:
                    partial.write_bytes(answer.read())
                unpack(partial)
            except (OSError, http.client.HTTPException, CorruptError) as error:
                failures.append(str(error))
                continue
            os.replace(partial, folder / name)
            return
    finally:
        partial.unlink(missing_ok=True)
        partial.parent.rmdir()
    raise InputError(
        f"{folder / name}: missing, and no mirror could be reached ({failures[-1]}); "
        f"put {', '.join(f'{file}.gz' for file in MD5)} into {folder}, or set data=DIR or SUPSUP_DATA "
        "to a folder that has them in mnist/"
    )


class MNIST(Base):
    """60,000 training and 10,000 test digits, 28 x 28, in `<root>/mnist/*.gz`."""

    shape = (28, 28)
    num_labels = 10

    def checksum(self) -> str:
        return hashlib.sha256("".join(MD5.values()).encode()).hexdigest()

    def load(self, root: Path | None) -> Dataset:
        folder = (root or user_cache()) / "mnist"
        for name in MD5:
            if not (folder / f"{name}.gz").exists():
                if root is not None:
                    raise InputError(
                        f"{folder / name}.gz: missing; put {', '.join(f'{file}.gz' for file in MD5)} "
                        f"into {folder}, or point data= or SUPSUP_DATA elsewhere"
                    )
                download(folder, f"{name}.gz")
        files = {name: unpack(folder / f"{name}.gz") for name in MD5}
        return Dataset(
            train=_images(files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"]),
            test=_images(files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"]),
            mean=0.1307,
            std=0.3081,
        )


def _images(pixels: bytes, labels: bytes) -> Images:
    """Cut the IDX headers off (16 and 8 bytes; the checksum has already vouched for the rest)."""
    shaped = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28).copy()
    return Images(
        torch.from_numpy(shaped),
        torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)),
    )


BASES.register("mnist")(MNIST())
