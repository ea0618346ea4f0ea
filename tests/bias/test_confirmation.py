"""What watching found is checked against the names of the layers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import Kosmos2Config, Kosmos2Model, ViTConfig, ViTModel

from beft_lightning.bias import Architecture, discover, find_bias_terms
from beft_lightning.bias.composite import architectures_of_model
from beft_lightning.bias.confirmation import check_found
from beft_lightning.errors import ArchitectureError

WIDTH = 8


class Attention(nn.Module):
    """Attention with layers of given names."""

    def __init__(self, names: str = "q_proj k_proj v_proj", gate: bool = False) -> None:
        super().__init__()
        self.names = names.split()
        for name in self.names:
            self.add_module(name, nn.Linear(WIDTH, WIDTH))
        self.g = nn.Linear(WIDTH, WIDTH) if gate else None

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self.get_submodule(name)(x) for name in self.names)
        value = value if self.g is None else value * self.g(x).sigmoid()
        return x + scaled_dot_product_attention(query, key, value)


class Net(nn.Module):
    """Layers of attention, each followed by an MLP's first layer."""

    def __init__(self, make: Callable[[int], nn.Module], names: tuple[str, ...] = ("attn",) * 2) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: make(i), "fc1": nn.Linear(WIDTH, WIDTH)}) for i, name in enumerate(names)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            for child in layer.values():
                x = child(x)
        return x


def found_in(net: nn.Module) -> list[Architecture]:
    return discover(net, lambda: net(torch.randn(1, 5, WIDTH)))


@pytest.mark.parametrize("names", ["q_proj k_proj v_proj", "query key value", "to_q to_k to_v", "wq wk wv"])
def test_usual_names_are_confirmed(names: str) -> None:
    net = Net(lambda _: Attention(names))
    found = found_in(net)
    check_found(net, found)
    assert list(found[0].terms) == ["mlp_in", "query", "key", "value"]  # fc1 is no output of attention


def test_a_gate_is_not_taken_for_the_value() -> None:
    net = Net(lambda _: Attention(gate=True))
    with pytest.raises(ArchitectureError, match="the value seems to come from 'attn.g'"):
        check_found(net, found_in(net))


def test_an_attention_without_one_of_its_inputs_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="no layer computes value alone"):
        check_found(nn.Module(), [Architecture("layers.{}", {"query": "q", "key": "k"})])


def test_self_and_cross_attention_have_layers_of_their_own() -> None:
    both = {f"{prefix}{term}": term[0] for prefix in ("", "cross_") for term in ("query", "key", "value")}
    with pytest.raises(ArchitectureError, match="one layer is query and cross_query"):
        check_found(nn.Module(), [Architecture("layers.{}", both)])


def test_layers_with_the_name_of_a_query_are_not_left_out() -> None:
    net = Net(lambda _: Attention())
    found = found_in(net)
    net.add_module("tower", Attention())
    with pytest.raises(ArchitectureError, match="1 layers with the name of a query were not seen .* 'tower.q_proj'"):
        check_found(net, found)


@pytest.mark.parametrize("name", ["linear_attn", "indexer"])
def test_queries_that_no_attention_takes_are_not_missed(name: str) -> None:
    net = Net(lambda _: Attention())
    found = found_in(net)
    net.add_module(name, Attention())
    check_found(net, found)


def test_a_part_that_no_made_up_input_reaches_is_an_error_with_what_was_seen() -> None:
    with torch.device("meta"):
        model = Kosmos2Model(Kosmos2Config())
    seen = r"(?s)'image_to_text_projection.x_attn.q_proj'.*What was seen:.*text_model.*in YAML"
    with pytest.raises(
        ArchitectureError, match=f"{seen}.*tune one of the models in it, as `scope`: text_model, vision_model"
    ):
        architectures_of_model(model)


def test_layers_that_take_turns_keep_their_index() -> None:
    net = Net(lambda _: Attention(), ("local", "wide", "local", "wide"))
    terms = find_bias_terms(net, architecture=found_in(net))
    assert sorted(terms["value"]) == [0, 1, 2, 3]
    assert terms["value"][1] is net.get_parameter("layers.1.wide.v_proj.bias")


def test_the_random_numbers_of_the_program_go_on() -> None:
    with torch.device("meta"):
        model = ViTModel(ViTConfig(hidden_size=48, num_attention_heads=3, intermediate_size=64, num_hidden_layers=1))
    before = torch.get_rng_state()
    architectures_of_model(model)
    assert torch.equal(torch.get_rng_state(), before)
