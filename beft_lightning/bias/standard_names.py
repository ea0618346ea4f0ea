"""The usual names of a layer's MLP and norms."""

from collections.abc import Collection

from torch import nn
from transformers.pytorch_utils import Conv1D

from beft_lightning.bias.architecture import Fused

#: Ends of paths inside a layer -> the term that the module there is of. The longest that fits counts.
NAMES = {
    **dict.fromkeys(("gate_proj", "wi_0"), "mlp_gate"),
    **dict.fromkeys(
        ("up_proj", "fc1", "c_fc", "fc_in", "dense_h_to_4h", "intermediate.dense", "lin1", "linear1", "wi", "wi_1"),
        "mlp_in",
    ),
    **dict.fromkeys(
        ("down_proj", "fc2", "mlp.c_proj", "fc_out", "dense_4h_to_h", "output.dense", "lin2", "linear2", "wo"),
        "mlp_out",
    ),
    **dict.fromkeys(
        (
            "attention.output.LayerNorm",
            "self_attn_layer_norm",
            "sa_layer_norm",
            "input_layernorm",
            "ln_1",
            "ln_attn",
            "layernorm_before",
            "layer_norm1",
            "norm1",
        ),
        "attention_norm",
    ),
    **dict.fromkeys(
        (
            "output.LayerNorm",
            "final_layer_norm",
            "output_layer_norm",
            "post_attention_layernorm",
            "ln_2",
            "ln_mlp",
            "layernorm_after",
            "layer_norm2",
            "norm2",
        ),
        "mlp_norm",
    ),
}
#: The same, of fused layers -> how they order their outputs.
FUSED = {"gate_up_proj": Fused({"mlp_gate": 1, "mlp_in": 1})}


def named_terms(layer: nn.Module, taken: Collection[str]) -> tuple[dict[str, str], dict[str, Fused]]:
    """Return the terms of a layer's MLP and norms, as far as their names are usual.

    Args:
        layer: One layer of a model.
        taken: Paths inside the layer of the modules that attention uses.

    Returns:
        Term -> path inside the layer, and path -> layout for fused layers. Terms that several modules could be of are
        left out.
    """
    found: dict[str, list[str]] = {}
    fused = {}
    for path, child in layer.named_modules():
        if path in taken or not isinstance(child, nn.Linear | Conv1D | nn.LayerNorm):
            continue
        if layout := next((layout for name, layout in FUSED.items() if _ends(path, name)), None):
            fused[path] = layout
        fitting = [name for name in NAMES if _ends(path, name)]
        biased = not isinstance(child, nn.LayerNorm) or child.bias is not None
        if not fitting or not biased:
            continue
        term = NAMES[max(fitting, key=len)]
        if isinstance(child, nn.LayerNorm) or not _is_beside(path, taken):  # else it is a gate of the attention
            found.setdefault(term, []).append(path)
    return {term: paths[0] for term, paths in found.items() if len(paths) == 1}, fused


def is_mlp_input(path: str) -> bool:
    """Return whether a path is the usual one of an MLP's first layer."""
    return any(_ends(path, name) for name, term in NAMES.items() if term in ("mlp_in", "mlp_gate"))


def _is_beside(path: str, others: Collection[str]) -> bool:
    """Return whether a layer is in the same module as another."""
    parent = path.rpartition(".")[0]
    return bool(parent) and any(other.startswith(f"{parent}.") for other in others)


def _ends(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")
