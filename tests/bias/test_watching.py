"""One forward pass is watched, and nothing of the model is left changed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from beft_lightning.bias.watching import Watch, watch


class Net(nn.Module):
    """Attention between layers; ``attend`` takes query, key and value."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor] = scaled_dot_product_attention) -> None:
        super().__init__()
        self.attend = attend
        self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.attend(self.q(x), self.k(x), self.v(x)) * 2)
        return result


def names_from(seen: Watch, tensor: Tensor, inside: str | None = None) -> list[str]:
    """The layers that a tensor comes from, nearest first."""
    return [seen.calls[edge].name for edge in seen.walk(tensor, inside=inside) if edge in seen.calls]


def with_relative_positions(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    logits = query @ key.mT
    return torch.softmax(logits + query @ torch.ones(4, 3), -1) @ value


def value_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (value.mT @ (query @ key.mT).softmax(-1).mT).mT


@pytest.mark.parametrize("attend", [scaled_dot_product_attention, with_relative_positions, value_first])
def test_inputs_and_the_layer_that_takes_the_result(attend: Callable[..., Tensor]) -> None:
    net = Net(attend)
    seen = watch(net, lambda: net(torch.randn(1, 3, 4)))
    (attention,) = seen.attentions
    taken = {term: names_from(seen, tensor) for term, tensor in attention.inputs.items()}
    assert taken == {"query": ["q"], "key": ["k"], "value": ["v"]}
    assert attention.consumer == "out"


def test_a_softmax_that_weighs_nothing_is_no_attention() -> None:
    net = Net(lambda query, key, value: query.softmax(-1) + key @ key.mT @ value)
    assert watch(net, lambda: net(torch.randn(1, 3, 4))).attentions == []


def test_frozen_models_are_watched_without_gradients() -> None:
    net = Net().requires_grad_(False)
    with torch.no_grad():
        seen = watch(net, lambda: net(torch.randn(1, 3, 4)))
    assert [attention.consumer for attention in seen.attentions] == ["out"]
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in net.parameters())


def test_nothing_is_watched_afterwards() -> None:
    net = Net()

    def fail() -> None:
        net(torch.randn(1, 3, 4))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        watch(net, fail)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in net.modules())
    seen = Watch(net)
    with seen.watching(net):
        net(torch.randn(1, 3, 4))
    net(torch.randn(1, 3, 4))
    assert len(seen.attentions) == 1


def test_the_walk_ends_at_a_layer_unless_it_is_inside() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
    seen = Watch(net)
    with seen.watching(net):
        output = net(torch.randn(2, 4))
    assert names_from(seen, output) == ["1.2"]
    assert names_from(seen, output, inside="1") == ["1.2", "1.0", "0"]
    assert list(seen.walk(torch.ones(1))) == []


def test_calls_know_where_the_bias_is_added() -> None:
    net = nn.ModuleDict({"table": nn.Embedding(5, 4), "conv": nn.Conv1d(4, 2, 1), "norm": nn.LayerNorm(2)})
    seen = watch(net, lambda: net["norm"](net["conv"](net["table"](torch.arange(3)[None]).mT).mT))
    assert [(call.name, call.channels, call.is_embedding) for call in seen.calls.values()] == [
        ("table", -1, True),
        ("conv", 1, False),
    ]


@pytest.mark.parametrize("shared", [True, False])
def test_the_attention_of_torch_is_seen_whole(shared: bool) -> None:
    attention = nn.MultiheadAttention(4, 1, batch_first=True)
    net = nn.ModuleDict({"layer": nn.Linear(4, 4), "attention": attention})

    def forward() -> None:
        x = net["layer"](torch.randn(1, 3, 4))
        other = x * 2 if shared else torch.randn(1, 3, 4)
        attention(x, other, other)

    (seen,) = [one for one in watch(net, forward).attentions if one.module]
    assert (seen.module, seen.inputs, seen.shares_input) == ("attention", {}, shared)
