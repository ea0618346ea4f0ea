"""The words an architecture is described in."""

from typing import Any

import pytest

from beft_lightning.bias import Architecture, Fused
from beft_lightning.errors import ArchitectureError

QKV = {"query": 1, "key": 1, "value": 1}


@pytest.mark.parametrize(
    ("parts", "groups", "outputs", "widths"),
    [
        (QKV, 1, 96, [32, 32, 32]),
        (QKV, 4, 96, [8, 8, 8]),
        ({"query": 4, "key": 1, "value": 1}, 2, 96, [32, 8, 8]),
    ],
)
def test_widths_are_shares_of_a_run(parts: dict[str, int], groups: int, outputs: int, widths: list[int]) -> None:
    assert Fused(parts, groups).widths(outputs) == widths
    assert groups * sum(widths) == outputs


def test_shares_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ArchitectureError, match="12 outputs of a fused layer cannot be shared out to 5 groups"):
        Fused({"value": 1, "query": 1}, groups=5).widths(12)


@pytest.mark.parametrize(("parts", "groups"), [({"value": 1}, 1), ({"value": 0, "key": 1}, 1), ({"a": 1, "b": 1}, 0)])
def test_a_layout_that_cannot_be_is_an_error(parts: dict[str, int], groups: int) -> None:
    with pytest.raises(ArchitectureError, match="at least two parts with positive shares and at least one group"):
        Fused(parts, groups)


def test_paths_name_terms_alone_and_with_others() -> None:
    mine = Architecture("h.{}", terms={"mlp_in": "mlp.fc"}, fused={"attn.qkv": Fused(QKV)})
    assert mine.paths == {"query": "attn.qkv", "key": "attn.qkv", "value": "attn.qkv", "mlp_in": "mlp.fc"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "encoder.layer", "terms": {"value": "v"}}, r"needs exactly one '\{\}'"),
        ({"layer": "a.{}.b.{}", "terms": {"value": "v"}}, r"needs exactly one '\{\}'"),
        ({"layer": "layer.{}"}, "terms is empty"),
        ({"layer": "layer.{}", "terms": {"value": "v"}, "fused": {"qkv": Fused(QKV)}}, "maps value twice"),
    ],
)
def test_a_mapping_that_could_never_match_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Architecture(**options)
