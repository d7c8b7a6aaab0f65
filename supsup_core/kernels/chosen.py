"""Says which kernels and instruction sets a process uses.

Other kernels or instruction sets can change the last bits of a result. This module loads torch and numba only when
`chosen_kernels` is called.
"""

from __future__ import annotations

from dataclasses import dataclass

_BFLOAT16 = {"avx512_bf16": "BF16", "amx_bf16": "AMX", "bf16": "BF16"}
"""Instruction sets for bfloat16 products, by their names in torch.cpu.get_capabilities."""


@dataclass(frozen=True, order=True, kw_only=True)
class Kernels:
    """The kernels of a process. An empty text means that the kernel was not recorded.

    `instructions`: the widest instruction sets that torch and oneDNN use, such as `AVX512+BF16+AMX`; on a GPU, the
    GPU's compute capability. `matmul`: the products of an MLP's layers. `rmsprop`: RMSprop steps. `top_k`: top-k masks.
    `mask_products`: inner products of packed masks with up to four vectors. `compiled` means a loop of this package,
    and `torch` a function of torch.
    """

    instructions: str = ""
    matmul: str = ""
    rmsprop: str = ""
    top_k: str = ""
    mask_products: str = ""


def chosen_kernels(device: str, deterministic: bool = False, tf32: bool = False) -> Kernels:
    """Returns the kernels that this process uses on `device`.

    deterministic, tf32: the arguments of `kernels.matmul.set_algorithms`, which affect CUDA only.
    """
    import torch

    if torch.device(device).type != "cpu":
        major, minor = torch.cuda.get_device_capability(device)
        options = ["torch", *["TF32"] * tf32, *["deterministic"] * deterministic]
        return Kernels(
            instructions=f"sm_{major}{minor}", matmul="+".join(options), rmsprop="torch", top_k="torch",
            mask_products="torch",
        )  # fmt: skip
    from supsup_core.kernels import mask_products, onednn

    products = f"permutation of {mask_products.REGISTER_LANES}" if mask_products.HAS_PERMUTATION else "planes"
    return Kernels(
        instructions=_instructions(), matmul="oneDNN" if onednn.is_faster() else "torch", rmsprop="compiled",
        top_k="compiled", mask_products=products,
    )  # fmt: skip


def _instructions() -> str:
    """Returns the instruction sets that torch and oneDNN use on the CPU, joined by `+`."""
    import torch

    from supsup_core.kernels import onednn

    known = torch.cpu.get_capabilities() if onednn.multiplies_bfloat16() else {}
    for_bfloat16 = [name for capability, name in _BFLOAT16.items() if known.get(capability)]
    return "+".join([torch.backends.cpu.get_cpu_capability(), *for_bfloat16])
