"""What watching cannot find is an error that says what was seen, and how to name it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import ElectraConfig, ElectraModel

from beft_lightning.bias import Architecture, add_missing_biases, discover, find_bias_terms, freeze_except
from beft_lightning.bias.discovery import architectures_of_twin
from beft_lightning.errors import ArchitectureError

WIDTH = 8
#: How to name what was not found, in both forms; it ends each error.
HOW = r".*in YAML:\n  selection:\n    architecture:\n.*in Python.*Architecture\("


class Kernel(torch.autograd.Function):
    """Attention in a function of its own, as kernels of flash-attention are."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(query, key, value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients[0], gradients[0], gradients[0]


class Block(nn.Module):
    """Attention with three layers; ``attend`` makes its result from them and the input."""

    def __init__(self, attend: Callable[["Block", Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.attend(self, x))


class Net(nn.Module):
    """Two blocks."""

    def __init__(self, attend: Callable[[Block, Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(attend) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def usual(block: Block, x: Tensor) -> Tensor:
    return scaled_dot_product_attention(block.q(x), block.k(x), block.v(x))


def none(block: Block, x: Tensor) -> Tensor:
    return block.v(x).relu()


def hidden(block: Block, x: Tensor) -> Tensor:
    result: Tensor = Kernel.apply(block.q(x), block.k(x), block.v(x))
    return result


def twice_alike(block: Block, x: Tensor) -> Tensor:
    """Two attentions share all projections, each in its role."""
    return usual(block, x) + scaled_dot_product_attention(block.q(x).flip(1), block.k(x), block.v(x))


def twice_otherwise(block: Block, x: Tensor) -> Tensor:
    """What is the key of one attention is the value of the other."""
    return usual(block, x) + scaled_dot_product_attention(block.q(x), block.v(x), block.k(x))


def at_once(block: Block, x: Tensor) -> Tensor:
    """One layer computes query, key and value."""
    same = block.q(x)
    return scaled_dot_product_attention(same, same, same)


def error(text: str) -> Any:
    """Expect an error with a text in it, and behind it how to name what was not found."""
    return pytest.raises(ArchitectureError, match=re.compile(text + HOW, re.DOTALL))


def found_in(net: nn.Module) -> list[Architecture]:
    return discover(net, lambda: net(torch.randn(1, 5, WIDTH)))


def test_a_model_without_attention() -> None:
    with error("no attention was seen .* 4 layers were called .blocks.0.v"):
        found_in(Net(none))


def test_attention_in_a_kernel_of_its_own() -> None:
    with error("comes from Kernel, which may hide attention.*flash-attention"):
        found_in(Net(hidden))


def test_what_is_hidden_can_be_named() -> None:
    net = Net(hidden)
    named = Architecture("blocks.{}", terms={"value": "v"})
    assert len(add_missing_biases(net, ["value"], named)) == 2
    assert freeze_except(net, ["value"], architecture=named) == ["blocks.0.v.bias", "blocks.1.v.bias"]


def test_inputs_that_nobody_gave() -> None:
    net = Net(usual)
    with error("failed: TypeError: .*missing 1 required.*'x'.*Give all"):
        discover(net, lambda: net())


def test_a_layer_that_is_all_at_once() -> None:
    seen = "2 attentions were seen.*the first takes query from 'blocks.0.q', key from 'blocks.0.q', value from"
    with error(seen):
        found_in(Net(at_once))


def test_two_attentions_that_share_projections() -> None:
    terms = {"query": "q", "key": "k", "value": "v", "attention_output": "out"}
    assert found_in(Net(twice_alike)) == [Architecture("blocks.{}", terms=terms)]
    with error("share the layer 'blocks.0.k', whose outputs are key and also value"):
        found_in(Net(twice_otherwise))


def test_a_compiled_module() -> None:
    net = Net(usual)
    compiled: Any = torch.compile(net)
    found = discover(compiled, lambda: compiled(torch.randn(1, 5, WIDTH)))
    add_missing_biases(compiled, ["value"], found)
    assert find_bias_terms(compiled, found)["value"][1] is net.get_parameter("blocks.1.v.bias")


def test_layers_without_attention_at_the_same_place_are_refused() -> None:
    """Linear attention has projections of the same names, and no attention takes them."""

    def sums(block: Block, x: Tensor) -> Tensor:
        return block.q(x) * (block.k(x).mT @ block.v(x)).sum(-1)

    net = Net(usual)
    assert isinstance(net.blocks[0], Block)
    net.blocks[0].attend = sums
    with pytest.raises(ArchitectureError, match=r"(?s)Net: 3 layers have the same place .*'blocks\.0\.q'" + HOW):
        discover(net, lambda: net(torch.randn(1, 3, WIDTH)))


def test_tokens_outside_of_the_vocabulary_are_named() -> None:
    class Failing(ElectraModel):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            raise IndexError("index out of range in self")

    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    net = Failing(ElectraConfig(vocab_size=99, eos_token_id=49407, **sizes))
    with error(
        r"IndexError: index out .* tokens outside of .* may be why: eos_token_id=49407 \(vocab_size=99\)\. Run it"
    ):
        architectures_of_twin(net)
