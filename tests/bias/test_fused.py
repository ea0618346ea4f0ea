"""Fused biases: split and put together again, trained in part."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning.bias import (
    Architecture,
    Fused,
    add_missing_biases,
    all_biases,
    architecture_of,
    find_bias_terms,
    freeze_except,
    fuse_biases,
    split_fused_biases,
)
from tests.tiny import LAYERS, MODEL_FORMS, make_model, token_ids

FUSED_FORMS = [form for form in MODEL_FORMS if architecture_of(make_model(form)).fused]
#: How the outputs of a fused layer with 4 heads of 8 are ordered, written out: q, k and v of each head.
LAYOUTS = {
    "bloom": "qkvqkvqkvqkv",
    "falcon": "qqkvqqkv",
    "falcon alibi": "qkvqkvqkvqkv",
    "falcon biased": "qqkvqqkv",
    "falcon multi-query": "qqqqkv",
    "falcon sequential": "qqqqkv",
    "gpt2": "qqqqkkkkvvvv",
    "gpt_neox": "qkvqkvqkvqkv",
    "phi3": "qqqqkkvv",
}


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=token_ids(model)).logits


def attention_bias(model: PreTrainedModel, layer: int = 0) -> Tensor:
    """The fused bias of query, key and value, put together."""
    architecture = architecture_of(model)
    (path,) = [path for path, fused in architecture.fused.items() if "query" in fused.parts]
    ending = f"{architecture.layer.format(layer)}.{path}"
    (owner,) = [child for name, child in model.named_modules() if name.endswith(ending)]
    bias = owner.bias
    assert isinstance(bias, Tensor)
    return bias.detach().clone()


def place(form: str, part: str) -> Tensor:
    """Where a fused bias holds the part that begins with this letter."""
    return torch.tensor([letter == part for letter in LAYOUTS[form] for _ in range(8)])


def test_every_fused_type_is_written_out() -> None:
    assert sorted(LAYOUTS) == sorted(FUSED_FORMS)


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_splitting_changes_no_number_and_can_be_undone(form: str) -> None:
    model = make_model(form).eval()
    before, state = logits(model), copy.deepcopy(model.state_dict())
    split_fused_biases(model)
    split_fused_biases(model)  # twice is once
    assert torch.equal(logits(model), before)
    parameters = dict(model.named_parameters())
    for layers in find_bias_terms(model).values():
        assert all(any(bias is parameter for parameter in parameters.values()) for bias in layers.values())
        assert all(bias.dim() == 1 for bias in layers.values())
    fuse_biases(model)
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)


def test_a_copy_is_put_together_without_the_original() -> None:
    model = make_model("gpt2").eval()
    split_fused_biases(model)
    other = copy.deepcopy(model)
    fuse_biases(other)
    assert torch.equal(logits(other), logits(model))
    again = copy.deepcopy(model)
    split_fused_biases(other)
    assert torch.equal(logits(again), logits(other))


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_added_zero_biases_change_nothing(form: str) -> None:
    model = make_model(form).eval()
    before = logits(model)
    terms = list(architecture_of(model).paths)
    added = add_missing_biases(model, terms)
    assert not any(bias.any() for bias in added)
    assert list(find_bias_terms(model)) == terms
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", MODEL_FORMS)
@pytest.mark.parametrize("term", ["query", "value"])
def test_ten_steps_train_the_named_part_and_nothing_else(form: str, term: str) -> None:
    model = make_model(form)
    add_missing_biases(model, ["query", "key", "value"])
    before = copy.deepcopy(model)
    names = freeze_except(model, [term])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)  # weight decay would move what it may
    ids = token_ids(model)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(input_ids=ids).logits, torch.tensor([0, 1])).backward()
        optimizer.step()
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    assert moved == names
    assert len(names) == len(find_bias_terms(before)[term])
    assert {id(p) for p in optimizer.state} == {id(model.get_parameter(name)) for name in names}
    if form in LAYOUTS:
        for layer in range(LAYERS):
            changed = attention_bias(model, layer) != attention_bias(before, layer)
            assert torch.equal(changed, place(form, term[0]))


@pytest.mark.parametrize("form", LAYOUTS)
def test_parts_are_where_the_layout_says_before_and_after_the_split(form: str) -> None:
    model = make_model(form)
    add_missing_biases(model, ["value"])
    fuse_biases(model)
    for part, term in enumerate(["query", "key", "value"], start=1):
        with torch.no_grad():
            find_bias_terms(model)[term][1].fill_(part)  # written through a view
        expected = attention_bias(model, 1)[place(form, term[0])]
        assert torch.equal(expected, torch.full_like(expected, part))
    whole = attention_bias(model, 1)
    split_fused_biases(model)
    for part, term in enumerate(["query", "key", "value"], start=1):
        assert torch.equal(find_bias_terms(model)[term][1].unique(), torch.tensor([float(part)]))
    assert torch.equal(attention_bias(model, 1), whole)


def test_looking_leaves_the_module_as_it_is() -> None:
    model = make_model("gpt2")
    names = [name for name, _ in model.named_parameters()]
    find_bias_terms(model)
    freeze_except(model, [], keep=all_biases(model))
    assert [name for name, _ in model.named_parameters()] == names
    assert all(p.requires_grad == n.endswith("bias") for n, p in model.named_parameters())


def test_every_bias_is_found_in_a_split_model_too() -> None:
    model = make_model("gpt2")
    values = sum(model.get_parameter(name).numel() for name in all_biases(model))
    split_fused_biases(model)
    assert sum(model.get_parameter(name).numel() for name in all_biases(model)) == values


def test_parts_of_a_half_precision_bias_are_fp32() -> None:
    model = make_model("gpt2").bfloat16()
    freeze_except(model, ["value"])
    parts = find_bias_terms(model)
    assert parts["value"][0].dtype == parts["query"][0].dtype == torch.float32
    assert model.get_parameter("transformer.h.0.attn.c_attn.weight").dtype == torch.bfloat16


def test_double_precision_stays() -> None:
    model = make_model("gpt_neox").double()
    freeze_except(model, ["value"])
    assert find_bias_terms(model)["value"][0].dtype == torch.float64


def test_splitting_only_needs_shapes() -> None:
    with torch.device("meta"):
        model = make_model("gpt2")
    freeze_except(model, ["value"])
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == LAYERS * 32


def test_a_fused_model_saves_as_transformers_would(tmp_path: Path) -> None:
    model = make_model("bloom").eval()
    freeze_except(model, ["value"])
    with torch.no_grad():
        find_bias_terms(model)["value"][2].add_(1)
    fuse_biases(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(type(model).from_pretrained(tmp_path)), logits(model))


class Attention(nn.Module):
    """A fused layer of nobody's: value before key before query."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"vkq": nn.Linear(4, 12)}) for _ in range(2))


@pytest.mark.parametrize(("groups", "values"), [(1, [0, 1, 2, 3, 4, 5]), (3, [0, 1, 4, 5, 8, 9])])
def test_a_fused_mapping_of_ones_own(groups: int, values: list[int]) -> None:
    mine = Architecture("blocks.{}", fused={"vkq": Fused({"value": 2, "key": 1, "query": 1}, groups)})
    module = Attention()
    assert freeze_except(module, ["value"], architecture=mine) == [
        f"blocks.{layer}.vkq.parametrizations.bias.original0" for layer in range(2)
    ]
    owner: Any = module.blocks[0]["vkq"]  # type: ignore[index]
    before = owner.bias.clone()
    with torch.no_grad():
        find_bias_terms(module, mine)["value"][0].add_(1)
    assert (owner.bias != before).nonzero().flatten().tolist() == values
