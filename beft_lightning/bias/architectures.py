"""Where each model type keeps its bias terms: the one table of architectures.

A *term* is one kind of bias, such as all value biases of a model. A term's name says its role, not its path,
so that scores of different models can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedModel

from beft_lightning.errors import ArchitectureError

#: Every term, in the order used to break ties, with its symbol in the BEFT figures.
TERM_SYMBOLS: Mapping[str, str] = {
    "query": "b_q",
    "key": "b_k",
    "value": "b_v",
    "attention_output": "b_m1",
    "attention_norm": "b_LN1",
    "mlp_gate": "b_gate",
    "mlp_in": "b_m2",
    "mlp_out": "b_m3",
    "mlp_norm": "b_LN2",
}


@dataclass(frozen=True)
class Architecture:
    """Where a model type keeps its bias terms.

    Args:
        layer: Path of one layer, with ``{}`` for its index, for example ``encoder.layer.{}``. It may be preceded by
            anything, so that one entry serves a bare encoder and the same encoder under a task head.
        terms: Path, inside a layer, of the module that owns each term's ``bias``.
        inert: Terms that cannot change the model's output. ``None`` means unknown: then they are probed.
    """

    layer: str
    terms: Mapping[str, str] = field(default_factory=dict)
    inert: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a mapping that could never match."""
        if self.layer.count("{}") != 1:
            raise ArchitectureError(
                f"Architecture.layer is {self.layer!r}; it needs exactly one '{{}}' where the layer's index stands, "
                "for example 'encoder.layer.{}'."
            )
        if not self.terms:
            raise ArchitectureError(
                "Architecture.terms is empty; map at least one term to a module inside a layer, "
                "for example {'value': 'attention.self.value'}."
            )


# Softmax ignores a constant added to all keys' logits, so the key bias is inert unless positions multiply the keys
# (RoPE) or keys are normalised (Namazifar et al. 2023, arXiv 2302.08626).
_KEY_IS_INERT = ("key",)

_BERT = Architecture(
    layer="encoder.layer.{}",
    terms={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "mlp_in": "intermediate.dense",
        "mlp_out": "output.dense",
        "mlp_norm": "output.LayerNorm",
    },
    inert=_KEY_IS_INERT,
)

#: ``config.model_type`` of transformers -> where its terms are.
ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _BERT,
    "distilbert": Architecture(
        layer="transformer.layer.{}",
        terms={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention_output": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "mlp_in": "ffn.lin1",
            "mlp_out": "ffn.lin2",
            "mlp_norm": "output_layer_norm",
        },
        inert=_KEY_IS_INERT,
    ),
    # GPT-J rotates only the first `rotary_dim` values of each head, so its key bias is live in part.
    "gptj": Architecture(
        layer="h.{}",
        terms={
            "query": "attn.q_proj",
            "key": "attn.k_proj",
            "value": "attn.v_proj",
            "attention_output": "attn.out_proj",
            "attention_norm": "ln_1",
            "mlp_in": "mlp.fc_in",
            "mlp_out": "mlp.fc_out",
        },
        inert=(),
    ),
    "llama": Architecture(
        layer="layers.{}",
        terms={
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "attention_output": "self_attn.o_proj",
            "mlp_gate": "mlp.gate_proj",
            "mlp_in": "mlp.up_proj",
            "mlp_out": "mlp.down_proj",
        },
        inert=(),
    ),
    "opt": Architecture(
        layer="decoder.layers.{}",
        terms={
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "attention_output": "self_attn.out_proj",
            "attention_norm": "self_attn_layer_norm",
            "mlp_in": "fc1",
            "mlp_out": "fc2",
            "mlp_norm": "final_layer_norm",
        },
        inert=_KEY_IS_INERT,
    ),
}


def language_model(module: nn.Module) -> PreTrainedModel:
    """The one transformers model that ``module`` is or contains (the outermost, so its task head is included).

    Where there are several, the one that is not frozen: a student, not its teacher.

    Raises:
        ArchitectureError: If there is none, or more than one to choose from.
    """
    found: dict[str, PreTrainedModel] = {}
    for name, child in module.named_modules():
        inside = any(not outer or name.startswith(f"{outer}.") for outer in found)
        if isinstance(child, PreTrainedModel) and not inside:
            found[name] = child
    if not found:
        raise ArchitectureError(
            f"{type(module).__name__} contains no transformers model, so its bias terms cannot be located. "
            "Give the module that contains one, or describe your model with an `architecture` mapping "
            "(layer and terms)."
        )
    live = {name: model for name, model in found.items() if any(p.requires_grad for p in model.parameters())}
    if len(found) > 1 and len(live) != 1:
        raise ArchitectureError(
            f"{type(module).__name__} contains {len(found)} transformers models ({', '.join(sorted(found))}): freeze "
            "all but the one whose biases shall be tuned, with `requires_grad_(False)`."
        )
    return next(iter((live if len(found) > 1 else found).values()))


def architecture_of(module: nn.Module) -> Architecture:
    """The table's entry for the model that ``module`` is or contains.

    Raises:
        ArchitectureError: If the model's type is not in the table.
    """
    model_type = language_model(module).config.model_type
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        raise ArchitectureError(
            f"model type {model_type!r} is unknown. Known types: {', '.join(sorted(ARCHITECTURES))}. "
            "For another one, say where its biases are, for example in YAML:\n"
            "  selection:\n"
            "    architecture:\n"
            "      layer: model.layers.{}\n"
            "      terms: {query: self_attn.q_proj, key: self_attn.k_proj, value: self_attn.v_proj}"
        ) from None
