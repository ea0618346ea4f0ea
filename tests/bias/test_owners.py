"""The modules that own bias terms are found by their paths."""

import pytest
from torch import nn
from transformers import AutoConfig, AutoModel

from beft_lightning.bias import Architecture, Fused
from beft_lightning.bias.owners import bias_owners, chosen, owners_of, places_of
from beft_lightning.errors import ArchitectureError, TermError

VALUE = Architecture("blocks.{}", terms={"value": "v"})


def stack(layers: int, **names: int) -> nn.ModuleDict:
    """A stack of layers with a linear layer of each name, of so many outputs."""
    blocks = [nn.ModuleDict({name: nn.Linear(2, width) for name, width in names.items()}) for _ in range(layers)]
    return nn.ModuleDict({"blocks": nn.ModuleList(blocks)})


def test_owners_are_found_below_any_head_and_in_the_order_of_layers() -> None:
    model = stack(12, v=2)
    owners = bias_owners(nn.ModuleDict({"model": model}), VALUE)
    assert list(owners["value"]) == list(range(12))
    assert all(owner is model.get_submodule(f"blocks.{i}.v") for i, owner in owners["value"].items())


def test_cross_attention_is_apart_and_layers_are_counted_on() -> None:
    shape = {"encoder_layers": 2, "decoder_layers": 3, "vocab_size": 99, "d_model": 32}
    model = AutoModel.from_config(AutoConfig.for_model("bart", **shape))
    owners = bias_owners(model)
    assert {term: list(layers) for term, layers in owners.items()} == {
        **{
            term: [0, 1, 2, 3, 4]
            for term in "query key value attention_output attention_norm mlp_in mlp_out mlp_norm".split()
        },
        **{f"cross_{term}": [0, 1, 2] for term in "query key value output".split()},
    }
    assert owners["value"][2] is model.get_submodule("decoder.layers.0.self_attn.v_proj")
    assert owners["cross_value"][0] is model.get_submodule("decoder.layers.0.encoder_attn.v_proj")


def test_a_path_from_the_root_means_this_stack_alone() -> None:
    model = nn.ModuleDict({**stack(2, v=2), "teacher": stack(3, v=2)})
    assert list(bias_owners(model, VALUE)["value"]) == [0, 1]


def test_a_star_counts_several_stacks_on() -> None:
    model = nn.ModuleDict({"left": stack(2, v=2), "right": stack(3, v=2)})
    owners = bias_owners(model, Architecture("*.blocks.{}", terms={"value": "v"}))["value"]
    assert list(owners) == [0, 1, 2, 3, 4]
    assert owners[2] is model.get_submodule("right.blocks.0.v")


def test_two_stacks_that_are_not_told_apart() -> None:
    model = nn.ModuleDict({"left": stack(2, v=2), "right": stack(2, v=2)})
    with pytest.raises(ArchitectureError, match=r"'value' has two modules for layer 0 \(one is 'right.blocks.0'\)"):
        bias_owners(model, VALUE)


def test_two_modules_in_one_layer() -> None:
    layer = Architecture("blocks.{}", terms={"value": "*"})
    with pytest.raises(ArchitectureError, match=r"'value' has two modules for layer 0 \(one is 'blocks.0.w'\)"):
        bias_owners(stack(1, v=2, w=2), layer)


def test_a_path_that_leads_nowhere() -> None:
    with pytest.raises(ArchitectureError, match="ModuleDict has no module for 'key' at 'blocks.{}.k'"):
        bias_owners(stack(1, v=2), Architecture("blocks.{}", terms={"value": "v", "key": "k"}))


def test_a_place_knows_the_bias_and_its_parts() -> None:
    model = stack(1, qkv=6)
    known = Architecture("blocks.{}", fused={"qkv": Fused({"query": 1, "key": 1, "value": 1})})
    places = places_of(model, known)
    assert list(places) == ["query", "key", "value"]
    place = places["value"][0]
    assert place.bias is model.get_parameter("blocks.0.qkv.bias")
    assert place.parts()["value"].tolist() == place.bias.tolist()[4:]


def test_terms_are_chosen_in_the_order_asked_for() -> None:
    assert list(chosen(["value", "query"], {"query": 1, "key": 2, "value": 3}).items()) == [("value", 3), ("query", 1)]
    with pytest.raises(TermError, match="no term 'key' in this model; it can have: value"):
        owners_of(["value", "key"], stack(1, v=2), VALUE)
