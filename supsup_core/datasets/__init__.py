"""Datasets of labelled images, and their readers."""

from supsup_core.datasets import cifar, digits, folders, imagenet, mnist
from supsup_core.datasets.base import (
    BASES,
    Base,
    Dataset,
    DerivedBase,
    Images,
    ReadsFiles,
    VerifiesFiles,
    base_from,
    base_node,
)

__all__ = [
    "BASES", "Base", "Dataset", "DerivedBase", "Images", "ReadsFiles", "VerifiesFiles", "base_from", "base_node",
    "cifar", "digits", "folders", "imagenet", "mnist",
]  # fmt: skip
