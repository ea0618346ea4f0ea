"""The table of architectures: every bias of a layer has a term, and names mean what they say."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from beft_lightning.bias import ARCHITECTURES, TERM_SYMBOLS, Architecture, find_bias_terms, language_model
from beft_lightning.bias.terms import bias_owners
from beft_lightning.errors import ArchitectureError
from tests.tiny import LAYERS, MODEL_TYPES, make_model


def test_every_known_type_is_tested() -> None:
    assert sorted(ARCHITECTURES) == MODEL_TYPES


def test_every_term_has_a_symbol() -> None:
    assert {term for architecture in ARCHITECTURES.values() for term in architecture.terms} <= set(TERM_SYMBOLS)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_terms_cover_every_bias_of_the_layers_once(model_type: str) -> None:
    model = make_model(model_type)
    found = [id(bias) for layers in find_bias_terms(model).values() for bias in layers.values()]
    in_layers = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if name.endswith("bias") and any(part.isdecimal() for part in name.split("."))
    }
    assert len(found) == len(set(found))
    assert set(found) == in_layers


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_each_projection_has_one_module_a_layer(model_type: str) -> None:
    for layers in bias_owners(make_model(model_type)).values():
        assert list(layers) == list(range(LAYERS))


# GPT-J computes its attention by itself, where nothing can watch it.
@pytest.mark.parametrize("model_type", [model_type for model_type in MODEL_TYPES if model_type != "gptj"])
@pytest.mark.parametrize("term", ["query", "key", "value"])
def test_a_term_is_what_attention_takes_for_it(model_type: str, term: str) -> None:
    """Perturb the term's bias in one layer and watch what reaches scaled-dot-product attention there."""
    model = make_model(model_type).eval()
    seen: list[tuple[torch.Tensor, ...]] = []
    original = nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: object, **kwargs: object) -> object:
        seen.append((query, key, value))
        return original(query, key, value, *args, **kwargs)  # type: ignore[arg-type]

    ids = torch.arange(4, 12).view(1, -1)
    nn.functional.scaled_dot_product_attention = spy  # type: ignore[assignment]
    try:
        with torch.no_grad():
            model(input_ids=ids)
            find_bias_terms(model)[term][0].add_(1.0)
            model(input_ids=ids)
    finally:
        nn.functional.scaled_dot_product_attention = original
    before, after = seen[0], seen[LAYERS]
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert dict(zip(["query", "key", "value"], changed, strict=True)) == {
        name: name == term for name in ["query", "key", "value"]
    }


def test_an_unknown_type_is_an_error_that_lists_the_known_ones() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("ctrl", n_layer=1, n_embd=8, n_head=2, dff=8, vocab_size=9))
    with pytest.raises(ArchitectureError, match=r"'ctrl' is unknown.*bert, .*opt.*(?s:.*)architecture:"):
        find_bias_terms(model)


def test_a_mapping_of_ones_own_works_without_a_transformers_model() -> None:
    blocks = nn.ModuleList(nn.ModuleDict({"v": nn.Linear(4, 4), "q": nn.Linear(4, 4)}) for _ in range(2))
    mine = Architecture(layer="blocks.{}", terms={"value": "v", "query": "q"})
    module = nn.ModuleDict({"blocks": blocks})
    terms = find_bias_terms(module, mine)
    assert {term: list(layers) for term, layers in terms.items()} == {"value": [0, 1], "query": [0, 1]}
    first = blocks[0]
    assert isinstance(first, nn.ModuleDict)
    assert terms["value"][0] is first["v"].bias


def test_a_mapping_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ArchitectureError, match="no module for 'value' at 'h.{}.nowhere'"):
        find_bias_terms(make_model("bert"), Architecture(layer="h.{}", terms={"value": "nowhere"}))


@pytest.mark.parametrize("layer", ["encoder.layer", "a.{}.b.{}"])
def test_a_mapping_needs_one_place_for_the_index(layer: str) -> None:
    with pytest.raises(ArchitectureError, match="exactly one '{}'"):
        Architecture(layer=layer, terms={"value": "v"})


def test_a_mapping_needs_terms() -> None:
    with pytest.raises(ArchitectureError, match="terms is empty"):
        Architecture(layer="layers.{}")


def test_the_model_is_found_inside_any_module() -> None:
    model = make_model("bert")
    assert language_model(nn.ModuleDict({"student": nn.Sequential(model)})) is model


def test_two_models_side_by_side_are_an_error() -> None:
    both = nn.ModuleDict({"teacher": make_model("bert"), "student": make_model("opt")})
    with pytest.raises(ArchitectureError, match="student, teacher"):
        find_bias_terms(both)


def test_a_module_without_a_model_is_an_error() -> None:
    with pytest.raises(ArchitectureError, match="contains no transformers model"):
        find_bias_terms(nn.Linear(2, 2))
