"""The table of architectures: for each model type, its bias terms and facts about its attention.

A *term* is one kind of bias, such as all value biases of a model. A term's name says its role, not its path,
so that scores of different models can be compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from beft_lightning.bias.architecture import Architecture, Attention, Fused

# Softmax ignores a constant added to all keys' logits, so the key bias is inert unless positions multiply the keys
# (RoPE) or keys are normalised (Namazifar et al. 2023, arXiv 2302.08626). Positions that are added to the logits
# (ALiBi, T5) leave it inert.
_KEY_IS_INERT = ("key",)

_TAKES_PREFIX = Attention(takes_prefix=True)

_EQUAL = {"query": 1, "key": 1, "value": 1}

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
    attention=_TAKES_PREFIX,
)
# Its positions begin behind the padding token's.
_ROBERTA = replace(_BERT, attention=Attention(takes_prefix=True, positions="padding"))

_LLAMA_ATTENTION = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_output": "self_attn.o_proj",
}

_LLAMA = Architecture(
    layer="layers.{}",
    terms={
        **_LLAMA_ATTENTION,
        "mlp_gate": "mlp.gate_proj",
        "mlp_in": "mlp.up_proj",
        "mlp_out": "mlp.down_proj",
    },
    inert=(),
    attention=_TAKES_PREFIX,
)


def _bloom(config: Any) -> Architecture:
    return Architecture(
        layer="h.{}",
        terms={
            "attention_output": "self_attention.dense",
            "attention_norm": "input_layernorm",
            "mlp_in": "mlp.dense_h_to_4h",
            "mlp_out": "mlp.dense_4h_to_h",
            "mlp_norm": "post_attention_layernorm",
        },
        fused={"self_attention.query_key_value": Fused(_EQUAL, groups=config.num_attention_heads)},
        inert=_KEY_IS_INERT,
        attention=Attention(takes_prefix=True, alibi=True),
    )


def _deberta_v2(config: Any) -> Architecture:
    # The position-to-content term multiplies keys with relative positions; the others add a constant for each query.
    live = config.relative_attention and "p2c" in (config.pos_att_type or ())
    return Architecture(
        layer="encoder.layer.{}",
        terms={
            **_BERT.terms,
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
        },
        inert=() if live else _KEY_IS_INERT,
    )


def _falcon(config: Any) -> Architecture:
    heads, groups = config.num_attention_heads, config.num_kv_heads
    if config.new_decoder_architecture:
        fused = Fused({"query": heads // groups, "key": 1, "value": 1}, groups=groups)
    elif config.multi_query:
        fused = Fused({"query": heads, "key": 1, "value": 1})
    else:
        fused = Fused(_EQUAL, groups=heads)
    if not config.parallel_attn:
        norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    elif config.num_ln_in_parallel_attn == 2:
        norms = {"attention_norm": "ln_attn", "mlp_norm": "ln_mlp"}
    else:
        norms = {"attention_norm": "input_layernorm"}
    return Architecture(
        layer="h.{}",
        terms={
            "attention_output": "self_attention.dense",
            "mlp_in": "mlp.dense_h_to_4h",
            "mlp_out": "mlp.dense_4h_to_h",
            **norms,
        },
        fused={"self_attention.query_key_value": fused},
        inert=_KEY_IS_INERT if config.alibi else (),
        attention=Attention(takes_prefix=True, alibi=config.alibi, parallel_mlp=config.parallel_attn),
    )


def _gpt_neo(config: Any) -> Architecture:
    return Architecture(
        layer="h.{}",
        terms={
            "query": "attn.attention.q_proj",
            "key": "attn.attention.k_proj",
            "value": "attn.attention.v_proj",
            "attention_output": "attn.attention.out_proj",
            "attention_norm": "ln_1",
            "mlp_in": "mlp.c_fc",
            "mlp_out": "mlp.c_proj",
            "mlp_norm": "ln_2",
        },
        inert=_KEY_IS_INERT,
        attention=Attention(window=config.window_size if "local" in config.attention_layers else None),
    )


def _gpt_neox(config: Any) -> Architecture:
    return Architecture(
        layer="layers.{}",
        terms={
            "attention_output": "attention.dense",
            "attention_norm": "input_layernorm",
            "mlp_in": "mlp.dense_h_to_4h",
            "mlp_out": "mlp.dense_4h_to_h",
            "mlp_norm": "post_attention_layernorm",
        },
        fused={"attention.query_key_value": Fused(_EQUAL, groups=config.num_attention_heads)},
        inert=(),
        attention=Attention(takes_prefix=True, parallel_mlp=config.use_parallel_residual),
    )


def _phi3(config: Any) -> Architecture:
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    return Architecture(
        layer="layers.{}",
        terms={"attention_output": "self_attn.o_proj", "mlp_out": "mlp.down_proj"},
        fused={
            "self_attn.qkv_proj": Fused({"query": heads, "key": groups, "value": groups}),
            "mlp.gate_up_proj": Fused({"mlp_gate": 1, "mlp_in": 1}),
        },
        inert=(),
        attention=_TAKES_PREFIX,
    )


def _t5(config: Any) -> Architecture:
    mlp = {"mlp_gate": "wi_0", "mlp_in": "wi_1"} if config.is_gated_act else {"mlp_in": "wi"}
    return Architecture(
        layer="*.block.{}",  # the decoder's layers are counted on from the encoder's
        terms={
            "query": "layer.0.SelfAttention.q",
            "key": "layer.0.SelfAttention.k",
            "value": "layer.0.SelfAttention.v",
            "attention_output": "layer.0.SelfAttention.o",
            "cross_query": "layer.1.EncDecAttention.q",
            "cross_key": "layer.1.EncDecAttention.k",
            "cross_value": "layer.1.EncDecAttention.v",
            "cross_output": "layer.1.EncDecAttention.o",
            **{term: f"layer.*.DenseReluDense.{name}" for term, name in {**mlp, "mlp_out": "wo"}.items()},
        },
        inert=("key", "cross_key"),
    )


#: ``config.model_type`` of transformers -> its architecture, or a function of the config that gives it.
ARCHITECTURES: Mapping[str, Architecture | Callable[[Any], Architecture]] = {
    "bert": _BERT,
    "bloom": _bloom,
    "deberta-v2": _deberta_v2,
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
    "electra": _BERT,
    "falcon": _falcon,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gpt2": Architecture(
        layer="h.{}",
        terms={
            "attention_output": "attn.c_proj",
            "attention_norm": "ln_1",
            "mlp_in": "mlp.c_fc",
            "mlp_out": "mlp.c_proj",
            "mlp_norm": "ln_2",
        },
        fused={"attn.c_attn": Fused(_EQUAL)},
        inert=_KEY_IS_INERT,
        attention=_TAKES_PREFIX,
    ),
    "gpt_neo": _gpt_neo,
    "gpt_neox": _gpt_neox,
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
        attention=Attention(takes_prefix=True, parallel_mlp=True),
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    # The experts are no linear layers, but slices of one tensor.
    "mixtral": Architecture(layer="layers.{}", terms=_LLAMA_ATTENTION, inert=()),
    "olmo2": _LLAMA,
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
        attention=Attention(takes_prefix=True, positions="mask"),
    ),
    "phi": Architecture(
        layer="layers.{}",
        terms={
            **_LLAMA_ATTENTION,
            "attention_output": "self_attn.dense",
            "attention_norm": "input_layernorm",
            "mlp_in": "mlp.fc1",
            "mlp_out": "mlp.fc2",
        },
        inert=(),
        attention=Attention(takes_prefix=True, parallel_mlp=True),
    ),
    "phi3": _phi3,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "roberta": _ROBERTA,
    "t5": _t5,
    "xlm-roberta": _ROBERTA,
}
