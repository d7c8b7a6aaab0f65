"""Binary masks: learned from scores, stored as packed bits."""

from supsup_core.masks.bank import MaskBank
from supsup_core.masks.edge_popup import (
    Each,
    MaskRule,
    Threshold,
    TopK,
    draw_scores,
    erdos_renyi_density,
    num_kept,
    top_k_mask,
)

__all__ = [
    "Each",
    "MaskBank",
    "MaskRule",
    "Threshold",
    "TopK",
    "draw_scores",
    "erdos_renyi_density",
    "num_kept",
    "top_k_mask",
]
