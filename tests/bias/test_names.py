"""Names of terms, of their layers and heads."""

import pytest

from beft_lightning.bias.names import has_head, in_towers, parsed, role, split_name, without_layers
from beft_lightning.errors import TermError


@pytest.mark.parametrize(
    ("name", "term", "layer", "head"),
    [
        ("value", "value", None, None),
        ("value.12", "value", 12, None),
        ("value.3.h5", "value", 3, 5),
        ("vision_model.value.0.h11", "vision_model.value", 0, 11),
        ("towers.1.value", "towers.1.value", None, None),
        ("towers.1.value.2", "towers.1.value", 2, None),
    ],
)
def test_a_name_is_a_term_with_its_tower_a_layer_and_a_head(
    name: str, term: str, layer: int | None, head: int | None
) -> None:
    assert parsed(name) == (term, layer, head)
    assert has_head(name) == (head is not None)
    assert split_name(name) == (term, name.removeprefix(term).removeprefix("."))


@pytest.mark.parametrize("name", ["value.h5", "value.3.4", "value.3.h5.h6", "value.h5.3"])
def test_what_is_neither_layer_nor_head_is_an_error(name: str) -> None:
    with pytest.raises(TermError, match=rf"'{name}' names no layer or head: layer 3 is 'value\.3'.*'value\.3\.h5'"):
        parsed(name)


def test_terms_are_named_once_in_their_order() -> None:
    assert without_layers(["value.3", "query", "value.4.h0", "left.value.1"]) == ["value", "query", "left.value"]


def test_a_term_of_several_towers_stands_for_that_of_all() -> None:
    terms = ["left.key", "left.value", "right.key", "right.value", "query"]
    assert [role(term) for term in terms] == ["key", "value", "key", "value", "query"]
    assert in_towers(["value.3.h1", "left.value.3.h1", "query.0"], terms) == [
        "left.value.3.h1",
        "right.value.3.h1",
        "query.0",
    ]
    assert in_towers(["unknown.2"], terms) == ["unknown.2"]
