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


def positions_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As in Transformer-XL, but for the order: queries and keys are multiplied with positions before each other."""
    positions = nn.Linear(4, 4)(torch.randn(3, 4))
    logits = query @ positions.mT + (key @ positions.mT).mT
    return (logits + torch.einsum("bid,bjd->bij", query, key)).softmax(-1) @ value


def with_positions_in_values(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = nn.functional.softmax(query @ key.mT, dim=-1)
    return torch.einsum("bij,ijd->bid", weights, nn.Parameter(torch.ones(3, 3, 4))) + weights @ value


def batched(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    logits = torch.baddbmm(torch.zeros(1, 3, 3), query, key.mT, beta=0.0, alpha=0.5)
    masked = torch.where(torch.ones(3, 3).tril().bool(), logits, torch.tensor(-1e4))
    return torch.bmm(nn.Softmax(dim=-1)(masked), value)


def changed_in_place(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query *= 0.5
    query[..., :2] = -query[..., 2:]
    logits = query @ key.mT
    logits += 1.0
    logits.masked_fill_(torch.ones(3, 3).triu(1).bool(), -1e4)
    return torch.matmul(torch.softmax(logits, -1), value)


def one_by_one(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query[0].mm(key[0].T).softmax(-1).mm(value[0]))[None]


ATTENTIONS = [
    scaled_dot_product_attention,
    with_relative_positions,
    positions_first,
    with_positions_in_values,
    value_first,
    batched,
    changed_in_place,
    one_by_one,
]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("attend", ATTENTIONS)
def test_inputs_and_the_layer_that_takes_the_result(attend: Callable[..., Tensor], frozen: bool) -> None:
    net = Net(attend).requires_grad_(not frozen)
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


def test_what_a_frozen_layer_gives_may_be_changed_in_place() -> None:
    net = nn.ModuleDict({"embed": nn.Embedding(5, 4), "net": Net()}).requires_grad_(False)

    def forward() -> Tensor:
        embedded = net["embed"](torch.arange(3)[None])
        embedded += 1
        result: Tensor = net["net"](embedded)
        return result

    seen = watch(net, forward)
    assert [attention.consumer for attention in seen.attentions] == ["net.out"]
    assert torch.equal(seen.outputs[0], forward())


def test_layers_that_run_without_gradients_are_seen_where_they_run_with_them() -> None:
    net = Net()

    def forward() -> Tensor:
        with torch.no_grad():
            x = net(torch.randn(1, 3, 4))
        result: Tensor = net(x)
        return result

    assert len(watch(net, forward).attentions) == 1


def test_what_two_inputs_have_in_common() -> None:
    """Values that no gradient reaches count, and the norm that both pass does not."""
    net = nn.ModuleDict({"norm": nn.LayerNorm(4), "k": nn.Linear(4, 4), "q": nn.Linear(4, 4)})
    taken: list[Tensor] = []

    def forward() -> None:
        x, other = torch.randn(2, 3, 4)
        taken.extend([net["q"](x), net["k"](x), net["q"](net["norm"](x)), net["k"](net["norm"](other))])

    seen = watch(net, forward)
    query, key, normed, other = (seen.ancestors(tensor) for tensor in taken)
    assert query & key
    assert not normed & other


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
