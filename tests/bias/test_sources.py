"""The layer that an input of attention comes from, and its share of the outputs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from beft_lightning.bias import Fused
from beft_lightning.bias.sources import Source, fused_layout, source
from beft_lightning.bias.watching import watch


def sources(inputs: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], **layers: nn.Module) -> dict[str, Source | None]:
    """The source of each input of an attention that takes what ``inputs`` returns."""
    module = nn.ModuleDict(layers)
    seen = watch(module, lambda: scaled_dot_product_attention(*inputs(torch.randn(1, 3, 4))))
    (attention,) = seen.attentions
    return {term: source(seen, tensor) for term, tensor in attention.inputs.items()}


def test_each_third_of_a_fused_layer() -> None:
    layer = nn.Linear(4, 12)
    found = sources(lambda x: layer(x).chunk(3, dim=-1), qkv=layer)
    flags = [tuple(4 * part <= place < 4 * part + 4 for place in range(12)) for part in range(3)]
    assert found == {term: Source("qkv", one) for term, one in zip(("query", "key", "value"), flags, strict=True)}
    value = found["value"]
    assert value is not None
    assert not value.is_whole


def test_the_last_layer_before_attention_owns_the_bias() -> None:
    first, last = nn.Linear(4, 2), nn.Linear(2, 4)
    found = sources(lambda x: (last(first(x)).mul(3), x, x), down=first, up=last)
    assert found == {"query": Source("up", (True,) * 4), "key": None, "value": None}


def test_an_embedding_is_no_source() -> None:
    table = nn.Embedding(9, 4)
    assert sources(lambda _: (table(torch.arange(3)[None]),) * 3, table=table)["query"] is None


def test_the_channels_of_a_convolution_are_its_outputs() -> None:
    layer = nn.Conv1d(4, 8, 1)

    def halves(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right = layer(x.mT).mT.chunk(2, dim=-1)
        return left, right, right

    assert sources(halves, conv=layer)["query"] == Source("conv", (True,) * 4 + (False,) * 4)


@pytest.mark.parametrize(
    ("order", "layout"),
    [
        ("qqkkvv", Fused({"query": 1, "key": 1, "value": 1})),
        ("qqqqkkvvqqqqkkvv", Fused({"query": 2, "key": 1, "value": 1}, groups=2)),
        ("vvkkqqqq", Fused({"value": 1, "key": 1, "query": 2})),
        ("qkv...", Fused({"query": 1, "key": 1, "value": 1, "rest": 3})),
        ("qq..", Fused({"query": 1, "rest": 1})),
        ("qqkkkqqkk", None),
        ("qkvqk", None),
        ("qkqv", None),
        ("qqqq", None),
    ],
)
def test_the_order_of_outputs(order: str, layout: Fused | None) -> None:
    terms = {term: term[0] for term in ("query", "key", "value") if term[0] in order}
    parts = {term: tuple(one == letter for one in order) for term, letter in terms.items()}
    found = fused_layout(parts)
    assert found == layout
    # Equal mappings may differ in their order, which is the point.
    assert found is None or list(found.parts) == list(layout.parts if layout else ())


def test_parts_that_overlap_have_no_order() -> None:
    assert fused_layout({"query": (True, True), "key": (False, True)}) is None
