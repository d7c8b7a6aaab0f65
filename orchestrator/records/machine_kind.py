"""Defines the machine kind: everything besides its content key that can change the last bits of a result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import overload

from orchestrator.base.keys import canonical
from orchestrator.base.plain_values import from_json, from_node, to_node
from orchestrator.base.wording import count
from supsup_core.errors import SupSupError
from supsup_core.kernels.chosen import Kernels

_NO_KERNELS = Kernels()


@dataclass(frozen=True, order=True, kw_only=True)
class MachineKind:
    """A kind of machine. On machines of the same kind, equal content keys give equal bits.

    `processor`: the model of the processor; on CUDA, the model of the GPU. `threads`: the CPU threads of a worker.
    `torch` to `python`: the versions of these packages. `cuda`: the versions of CUDA and cuDNN, or "" on a CPU. All
    fields are empty if an earlier version of supsup computed the result (NOT_RECORDED).
    """

    processor: str = ""
    threads: int = 0
    kernels: Kernels = _NO_KERNELS
    torch: str = ""
    numpy: str = ""
    numba: str = ""
    python: str = ""
    cuda: str = ""

    def __str__(self) -> str:
        """The kind in words, as one line."""
        if self == NOT_RECORDED:
            return "not recorded (computed by an earlier version of supsup)"
        kernels = [(name, getattr(self.kernels, name)) for name in _KERNELS]
        parts = [self.processor, self.kernels.instructions, count(self.threads, "thread"), self.versions]
        return ", ".join([*parts, "kernels: " + " · ".join(f"{name} {kernel}" for name, kernel in kernels)])

    @property
    def versions(self) -> str:
        """The recorded versions of the libraries in words."""
        python, cuda = ("Python", self.python), ("CUDA", self.cuda)
        found = [("torch", self.torch), ("numpy", self.numpy), ("numba", self.numba), python, cuda]
        return ", ".join(f"{name} {version}" for name, version in found if version) or "unknown versions"


_KERNELS = [field.name for field in fields(Kernels) if field.name != "instructions"]


class Machines(Sequence[MachineKind]):
    """Distinct machine kinds in ascending order, equal to a tuple of the same kinds.

    Each kind is stored and pickled as one JSON text, which is decoded once per process: a ledger repeats the same few
    kinds in thousands of rows.
    """

    __slots__ = ("_hash", "_kinds", "_texts")

    def __init__(self, kinds: Iterable[MachineKind] = ()) -> None:
        self._kinds = tuple(sorted(set(kinds)))
        self._hash = hash(self._kinds)
        self._texts: tuple[str, ...] | None = None

    @overload
    def __getitem__(self, number: int) -> MachineKind: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[MachineKind]: ...

    def __getitem__(self, number: int | slice) -> MachineKind | Sequence[MachineKind]:
        return self._kinds[number]

    def __len__(self) -> int:
        return len(self._kinds)

    def __eq__(self, other: object) -> bool:
        return self._kinds == (other._kinds if isinstance(other, Machines) else other)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Machines({list(self._kinds)})"

    def __reduce__(self) -> tuple[Callable[[tuple[str, ...]], Machines], tuple[tuple[str, ...]]]:
        return _machines_of, (self.to_plain(),)

    def to_plain(self) -> tuple[str, ...]:
        """Returns the JSON text of each kind."""
        if self._texts is None:
            self._texts = tuple(canonical(to_node(kind)) for kind in self._kinds)
        return self._texts

    @classmethod
    def from_plain(cls, plain: object) -> Machines:
        """Builds machines from the texts that `to_plain` returned. Raises ValueError if a text is not a kind."""
        if not isinstance(plain, (list, tuple)):  # faster than a union, in every row of a ledger
            raise ValueError("must be a list")
        try:
            return _machines_of(tuple(plain))
        except TypeError:  # dicts cannot be hashed; versions of November 2026 stored kinds as dicts
            return Machines(from_node(node, MachineKind) for node in plain)


@functools.lru_cache(maxsize=1000)
def _machines_of(texts: tuple[object, ...]) -> Machines:
    """Returns the machines with these JSON texts. Raises ValueError if a text is not a kind."""
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("must be a list of texts")
    return Machines(from_json(str(text).encode(), MachineKind) for text in texts)


NOT_RECORDED = MachineKind()
UNKNOWN = Machines([NOT_RECORDED])
"""The machine kinds of results that earlier versions of supsup computed."""


def joined(*groups: Iterable[MachineKind]) -> Machines:
    """Returns the distinct machine kinds of several groups in ascending order."""
    return Machines(kind for group in groups for kind in group)


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from. `machines`: the kinds of all machines that contributed to the result.

    `weights_sha256`: the SHA-256 of the frozen weights W with which the result was computed, or "" if the hash was not
    recorded.
    """

    machines: Machines = UNKNOWN
    weights_sha256: str = ""

    def with_machines(self, machines: Iterable[MachineKind]) -> Provenance:
        """Returns this provenance with further machines, for a result that also builds on results of these machines."""
        return Provenance(joined(self.machines, machines), self.weights_sha256)

    def fits(self, other: Provenance) -> bool:
        """Returns whether two provenances have the same frozen weights.

        Weights that were not recorded count as the same.
        """
        return "" in (self.weights_sha256, other.weights_sha256) or self.weights_sha256 == other.weights_sha256

    @property
    def versions(self) -> str:
        """The versions of the libraries on all machines in words."""
        return " or ".join(sorted({kind.versions for kind in self.machines}))


def check_weights(where: Path, found: Provenance, here: Provenance) -> None:
    """Raises SupSupError if stored masks belong to other frozen weights than this process draws.

    Masks are useless without the weights W with which they were trained. W is drawn from a seed and never stored, so a
    library version that draws another W would give wrong results. where: the file of the masks. found: the provenance
    of the masks. here: the provenance of this process.
    """
    if not found.fits(here):
        raise SupSupError(
            f"{where}: this result belongs to other frozen weights than this process draws from the same seed; the "
            f"result was computed with {found.versions}, but this process has {here.versions}; install the versions "
            "that computed the result, or set output=DIR to a new folder"
        )
