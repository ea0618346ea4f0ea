"""The usual names of a layer's MLP and norms are terms."""

from torch import nn

from beft_lightning.bias import Fused
from beft_lightning.bias.architecture import TERM_SYMBOLS
from beft_lightning.bias.standard_names import FUSED, NAMES, named_terms


def layer(**children: nn.Module) -> nn.Module:
    """A layer whose children have these names; two underscores stand for a dot."""
    root = nn.Module()
    for name, child in children.items():
        parent = root
        *outer, last = name.split("__")
        for part in outer:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, child)
    return root


def linear() -> nn.Linear:
    return nn.Linear(2, 2)


def test_every_name_is_of_a_term() -> None:
    assert set(NAMES.values()) <= set(TERM_SYMBOLS)
    assert {term for layout in FUSED.values() for term in layout.parts} <= set(TERM_SYMBOLS)


def test_the_longest_end_counts() -> None:
    model = layer(
        attention__output__LayerNorm=nn.LayerNorm(2),
        intermediate__dense=linear(),
        output__dense=linear(),
        output__LayerNorm=nn.LayerNorm(2),
    )
    assert named_terms(model, ()) == (
        {
            "attention_norm": "attention.output.LayerNorm",
            "mlp_in": "intermediate.dense",
            "mlp_out": "output.dense",
            "mlp_norm": "output.LayerNorm",
        },
        {},
    )


def test_a_module_of_attention_is_left_out() -> None:
    model = layer(attention__output__dense=linear(), output__dense=linear())
    assert named_terms(model, {"attention.output.dense"})[0] == {"mlp_out": "output.dense"}


def test_a_term_of_several_modules_is_left_out() -> None:
    assert named_terms(layer(expert__fc1=linear(), shared__fc1=linear(), fc2=linear()), ())[0] == {"mlp_out": "fc2"}


def test_a_norm_without_a_bias_is_no_term_but_a_linear_layer_can_be_given_one() -> None:
    model = layer(norm1=nn.LayerNorm(2, bias=False), norm2=nn.LayerNorm(2), fc1=nn.Linear(2, 2, bias=False))
    assert named_terms(model, ())[0] == {"mlp_norm": "norm2", "mlp_in": "fc1"}


def test_a_part_of_a_name_is_not_its_end() -> None:
    assert named_terms(layer(myfc1=linear(), fc1=nn.ReLU()), ()) == ({}, {})


def test_gate_and_input_may_be_fused() -> None:
    model = layer(mlp__gate_up_proj=nn.Linear(2, 4), mlp__down_proj=linear())
    assert named_terms(model, ()) == (
        {"mlp_out": "mlp.down_proj"},
        {"mlp.gate_up_proj": Fused({"mlp_gate": 1, "mlp_in": 1})},
    )
