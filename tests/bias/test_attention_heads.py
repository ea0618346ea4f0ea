"""Single heads: found, trained and stored as slices of their own."""

import copy

import pytest
import torch
from torch import Tensor, nn

from beft_lightning.bias import (
    Architecture,
    Attention,
    Fused,
    add_missing_biases,
    discover,
    find_bias_terms,
    freeze_except,
    fuse_biases,
    resolve,
    set_heads_apart,
)
from beft_lightning.bias.structure import fit_state, fit_structure, split_layouts
from beft_lightning.errors import ArchitectureError, TermError
from tests.bias.test_fused import LAYOUTS, attention_bias, logits
from tests.tiny import make_model, token_ids

#: Heads are 8 wide. Types with a layer for each term -> number of heads of query, key and value.
PLAIN = {"bert": (4, 4, 4), "t5": (4, 4, 4), "gptj": (4, 4, 4), "distilbert": (4, 4, 4), "llama": (4, 2, 2)}
FORMS = [*PLAIN, *LAYOUTS]


def counts(form: str) -> dict[str, int]:
    heads = PLAIN.get(form) or tuple(LAYOUTS[form].count(letter) for letter in "qkv")
    return dict(zip(("query", "key", "value"), heads, strict=True))


def slice_of(form: str, term: str, head: int) -> Tensor:
    """Where the bias of a layer holds a head: of the fused one, or of the term's own."""
    if form in PLAIN:
        return torch.arange(counts(form)[term] * 8).div(8, rounding_mode="floor") == head
    letters = LAYOUTS[form]
    block = [place for place, letter in enumerate(letters) if letter == term[0]][head]
    return torch.arange(len(letters) * 8).div(8, rounding_mode="floor") == block


def bias_of(form: str, model: nn.Module, term: str, layer: int) -> Tensor:
    if form in LAYOUTS:
        return attention_bias(model, layer)  # type: ignore[arg-type]
    return find_bias_terms(model)[term][layer].detach().clone()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("term", ["query", "value"])
def test_ten_steps_train_the_slice_of_one_head_and_nothing_else(form: str, term: str) -> None:
    model = make_model(form)
    add_missing_biases(model, ["query", "key", "value"])
    before = copy.deepcopy(model)
    fuse_biases(before)
    head = counts(form)[term] - 1
    (name,) = freeze_except(model, [f"{term}.1.h{head}"])
    assert torch.equal(logits(model.eval()), logits(before.eval()))
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(input_ids=token_ids(model)).logits, torch.tensor([0, 1])).backward()
        optimizer.step()
    assert [tuple(state["exp_avg"].shape) for state in optimizer.state.values()] == [(8,)]
    assert {id(p) for p in optimizer.state} == {id(model.get_parameter(name))}
    for layer in range(3):
        changed = bias_of(form, model, term, layer) != bias_of(form, before, term, layer)
        expected = slice_of(form, term, head) if layer == 1 else torch.zeros_like(changed)
        assert torch.equal(changed, expected)
    fuse_biases(model)
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    assert len(moved) == 1
    assert moved[0].endswith("bias")


@pytest.mark.parametrize("form", ["bert", "llama", "gpt2", "gpt_neox", "falcon", "phi3"])
def test_heads_follow_the_width_of_a_head_and_can_be_put_together_again(form: str) -> None:
    model = make_model(form).eval()
    add_missing_biases(model, ["query", "key", "value"])
    fuse_biases(model)
    before, state = logits(model), copy.deepcopy(model.state_dict())
    set_heads_apart(model, ["query", "key.1", "value.2.h0"])
    assert torch.equal(logits(model), before)
    for term, layer in (("query", 0), ("key", 1), ("value", 2)):
        bias = find_bias_terms(model)[term][layer]
        assert len(bias.heads) == counts(form)[term]  # type: ignore[attr-defined]
        assert all(head.shape == (8,) for head in bias.heads)  # type: ignore[attr-defined]
    fuse_biases(model)
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)


def test_a_term_and_a_layer_still_name_all_of_it_once_heads_are_apart() -> None:
    model = make_model("bert")
    whole = len(freeze_except(model, ["value"]))
    freeze_except(model, ["value.1.h2"])
    assert sum(p.numel() for p in resolve(find_bias_terms(model), ["value"])) == 3 * 32
    assert len(freeze_except(model, ["value"])) == whole - 1 + 4
    assert len(freeze_except(model, ["value.1"])) == 4
    assert len(freeze_except(model, ["value.1.h0", "value.1.h2", "value.1.h0"])) == 2


def test_the_only_head_of_a_layer_is_all_of_its_bias() -> None:
    model = make_model("llama", num_key_value_heads=1)
    (name,) = freeze_except(model, ["key.2.h0"])
    assert model.get_parameter(name).shape == (8,)
    with pytest.raises(TermError, match=r"heads of 'key' there: h0\.\.h0\."):
        freeze_except(model, ["key.2.h1"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlp_in.1.h0", "'mlp_in' has no heads; the terms of this model that have some: query, key, value"),
        ("attention_output.1.h0", "'attention_output' has no heads"),
        ("value.1.h4", r"names no head; heads of 'value' there: h0\.\.h3"),
        ("value.3.h0", r"names no layer; layers of 'value': 0\.\.2"),
        ("value.h1", r"layer 3 is 'value\.3', and its head 5 is 'value\.3\.h5'"),
        ("value.1.5", "names no layer or head"),
        ("gate.1.h1", "no term 'gate'"),
    ],
)
def test_a_name_of_no_head_says_what_there_is_and_changes_nothing(name: str, message: str) -> None:
    model = make_model("bert")
    before = [(n, p.requires_grad) for n, p in model.named_parameters()]
    with pytest.raises(TermError, match=message):
        freeze_except(model, ["query.0.h0", name])
    assert [(n, p.requires_grad) for n, p in model.named_parameters()] == before


def test_heads_that_are_not_apart_cannot_be_resolved() -> None:
    with pytest.raises(TermError, match=r"heads of this bias are not set apart; set_heads_apart\(\) does so"):
        resolve(find_bias_terms(make_model("bert")), ["value.1.h0"])


class Block(nn.Module):
    """A fused layer of nobody's: value before key before query, two heads of two."""

    def __init__(self, **facts: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"vkq": nn.Linear(4, 12)}) for _ in range(2))
        for name, value in facts.items():
            setattr(self, name, value)


def test_the_width_of_a_head_is_written_down_where_no_module_has_it() -> None:
    parts = {"value": 1, "key": 1, "query": 1}
    unknown = Architecture("blocks.{}", fused={"vkq": Fused(parts)})
    with pytest.raises(ArchitectureError, match=r"no module around it has .*attention: \{head_width: 64\}"):
        freeze_except(Block(), ["key.0.h1"], architecture=unknown)
    known = Architecture("blocks.{}", fused={"vkq": Fused(parts)}, attention=Attention(head_width=2))
    module = Block()
    (name,) = freeze_except(module, ["key.0.h1"], architecture=known)
    assert name == "blocks.0.vkq.parametrizations.bias.original2"  # value, head 0 of key, head 1 of key, query
    assert freeze_except(Block(head_dim=2), ["key.0.h1"], architecture=unknown) == [name]
    with pytest.raises(ArchitectureError, match="the 4 outputs of 'blocks.0.vkq' that are key are no whole number"):
        freeze_except(Block(head_dim=3), ["key.0.h1"], architecture=unknown)


def test_heads_of_torchs_own_attention() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=8, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
    found = discover(model, lambda: model(torch.randn(1, 5, 16)))
    inputs = torch.randn(2, 5, 16)
    before = model(inputs)
    (name,) = freeze_except(model, ["value.1.h1"], architecture=found)
    assert name == "layers.1.self_attn.parametrizations.in_proj_bias.original3"  # query, key, value: h0, h1
    torch.testing.assert_close(model(inputs), before)


@pytest.mark.parametrize("form", ["bert", "gpt2", "gpt_neox"])
def test_a_module_takes_the_structure_of_a_state_with_other_heads_or_none(form: str) -> None:
    fitted, other, whole = (make_model(form).eval() for _ in range(3))
    freeze_except(fitted, ["value.1.h2"])
    with torch.no_grad():
        find_bias_terms(fitted)["value"][1].heads[2].add_(1)  # type: ignore[attr-defined]
    freeze_except(other, ["value.0.h1", "query.1.h0"])
    for module in (other, whole):
        fit_structure(module, fitted.state_dict(), layouts=split_layouts(fitted))
        module.load_state_dict(fit_state(module, fitted.state_dict()))
        assert torch.equal(logits(module), logits(fitted))
    fuse_biases(fitted)
    fit_structure(other, fitted.state_dict())
    other.load_state_dict(fit_state(other, fitted.state_dict()))
    assert torch.equal(logits(other), logits(fitted))
