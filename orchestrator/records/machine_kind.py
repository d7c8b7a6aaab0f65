"""Defines the machine kind: everything besides its content key that can change the last bits of a result.

This module loads torch only when `this_machine` is called, so that ledgers can be read quickly.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import overload

from orchestrator.base.environment import processor, versions
from orchestrator.base.keys import canonical
from orchestrator.base.plain_values import from_json, from_node, to_node
from orchestrator.base.wording import count
from supsup_core.errors import SupSupError
from supsup_core.kernels.chosen import Kernels, chosen_kernels

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

    Each kind is stored as one JSON text, which is decoded once per process: a ledger repeats the same few kinds in
    thousands of rows.
    """

    __slots__ = ("_kinds",)

    def __init__(self, kinds: Iterable[MachineKind] = ()) -> None:
        self._kinds = tuple(sorted(set(kinds)))

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
        return hash(self._kinds)

    def __repr__(self) -> str:
        return f"Machines({list(self._kinds)})"

    def to_plain(self) -> list[str]:
        """Returns the JSON text of each kind."""
        return list(map(_text_of, self._kinds))

    @classmethod
    def from_plain(cls, plain: object) -> Machines:
        """Builds machines from the texts that `to_plain` returned. Raises ValueError if a text is not a kind."""
        if not isinstance(plain, list | tuple):
            raise ValueError("must be a list")
        if all(isinstance(text, str) for text in plain):
            return _machines_of(tuple(plain))
        return Machines(from_node(node, MachineKind) for node in plain)  # as versions of November 2026 stored kinds


@functools.lru_cache(maxsize=1000)
def _text_of(kind: MachineKind) -> str:
    return canonical(to_node(kind))


@functools.lru_cache(maxsize=1000)
def _machines_of(texts: tuple[str, ...]) -> Machines:
    return Machines(from_json(text.encode(), MachineKind) for text in texts)


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


@functools.cache
def this_machine(device: str, threads: int, deterministic: bool = False, tf32: bool = False) -> MachineKind:
    """Returns the kind of this machine. The arguments are those of a sweep file's `resources`. Loads torch and numba.

    Raises RuntimeError if the device is not available.
    """
    import torch

    on_gpu = torch.device(device).type != "cpu"
    return MachineKind(
        processor=torch.cuda.get_device_name(device) if on_gpu else processor(),
        threads=threads,
        kernels=chosen_kernels(device, deterministic, tf32),
        torch=str(torch.__version__),  # a plain str, because unpickling a TorchVersion loads torch
        numpy=versions()["numpy"],
        numba=versions()["numba"],
        python=platform.python_version(),
        cuda=f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if on_gpu else "",  # type: ignore[no-untyped-call]
    )
