"""The table of architectures: every bias of a layer has a term, and names mean what they say."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from beft_lightning.bias import (
    ARCHITECTURES,
    TERM_SYMBOLS,
    Architecture,
    add_missing_biases,
    architecture_of,
    find_bias_terms,
)
from beft_lightning.bias.owners import bias_owners
from beft_lightning.errors import ArchitectureError
from tests.tiny import LAYERS, MODEL_FORMS, MODEL_TYPES, make_model, token_ids

ATTENTION = ["query", "key", "value"]


def test_every_known_type_is_tested() -> None:
    assert sorted(ARCHITECTURES) == MODEL_TYPES


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_every_term_has_a_symbol_and_inert_terms_exist(form: str) -> None:
    architecture = architecture_of(make_model(form))
    assert set(architecture.paths) <= set(TERM_SYMBOLS)
    assert architecture.inert is not None
    assert set(architecture.inert) <= set(architecture.paths)


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_terms_cover_every_bias_of_the_layers_once(form: str) -> None:
    """Marked by writing, so that parts of a fused bias are counted too."""
    model = make_model(form)
    in_layers = [
        parameter
        for name, parameter in model.named_parameters()
        if name.endswith("bias") and any(part.isdecimal() for part in name.split("."))
    ]
    with torch.no_grad():
        for parameter in in_layers:
            parameter.zero_()
        for layers in find_bias_terms(model).values():
            for bias in layers.values():
                bias.add_(1)
    assert all((parameter == 1).all() for parameter in in_layers)


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_each_projection_has_one_module_a_layer(form: str) -> None:
    model = make_model(form)
    stacks = 2 if model.config.is_encoder_decoder else 1
    for term, layers in bias_owners(model).items():
        assert list(layers) == list(range(LAYERS if term.startswith("cross") else stacks * LAYERS))


class AttentionWatch(TorchFunctionMode):
    """Sees what the attention functions of a model take: query, key and value, each ``(..., tokens, head size)``."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[list[Tensor]] = []
        self._softmax_seen = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            self.taken.append(list(args[:3]))
        elif name == "softmax":
            self._softmax_seen = True
        elif name in ("bmm", "matmul", "baddbmm"):
            # Attention written out: the first product takes query and key, the one after the softmax the value.
            left, right = [a for a in [*args, *(kwargs or {}).values()] if isinstance(a, Tensor)][-2:]
            if self._softmax_seen and (not self.taken or len(self.taken[-1]) == 3):
                self.taken.append([left, right.mT])
                self._softmax_seen = False
            elif self._softmax_seen:
                self.taken[-1].append(right)
        return func(*args, **(kwargs or {}))


def attention_inputs(model: PreTrainedModel) -> list[list[Tensor]]:
    """Query, key and value of each layer, from the first to the last, for the first example."""
    ids = token_ids(model)[:1]
    with torch.no_grad(), AttentionWatch() as watch:
        model(input_ids=ids)
    return [[part.clone() for part in taken] for taken in watch.taken if len(taken) == 3]


@pytest.mark.parametrize("form", MODEL_FORMS)
@pytest.mark.parametrize("term", ATTENTION)
def test_a_term_is_what_attention_takes_for_it(form: str, term: str) -> None:
    """Perturb a term's bias in one layer: of the three that reach attention there, this one changes, and as it should.

    A value changes by the perturbation itself, head by head; so do query and key at the first token, where a rotation
    of positions is none, unless they are normalised.
    """
    model = make_model(form).eval()
    add_missing_biases(model, ATTENTION)
    before = attention_inputs(model)
    bias = find_bias_terms(model)[term][0]
    shift = torch.randn(bias.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bias.add_(shift)
    after = attention_inputs(model)
    assert len(before) == len(after) >= LAYERS
    changed = [not torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True)]
    assert dict(zip(ATTENTION, changed, strict=True)) == {name: name == term for name in ATTENTION}
    if term != "value" and model.config.model_type in ("olmo2", "qwen3"):
        return
    difference = (after[0][ATTENTION.index(term)] - before[0][ATTENTION.index(term)])[..., 0, :]
    difference = difference.view(-1, difference.shape[-1])
    expected = shift.view(-1, difference.shape[-1])
    # Falcon and others repeat the heads that a group shares.
    expected = expected.repeat_interleave(len(difference) // len(expected), dim=0)
    # Two types scale the logits before they multiply.
    if (model.config.model_type, term) in (("deberta-v2", "key"), ("opt", "query")):
        parts = 1 + len(getattr(model.config, "pos_att_type", None) or ())
        expected = expected / (parts * expected.shape[-1]) ** 0.5
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", [form for form in MODEL_FORMS if form.startswith("t5")])
@pytest.mark.parametrize("term", ATTENTION)
def test_cross_attention_is_a_term_of_its_own(form: str, term: str) -> None:
    """In the order of calls: the encoder's layers, then self and cross attention of each of the decoder's."""
    model = make_model(form).eval()
    add_missing_biases(model, [*ATTENTION, *(f"cross_{name}" for name in ATTENTION)])
    before = attention_inputs(model)
    for name, layer, call in ((f"cross_{term}", 0, LAYERS + 1), (term, LAYERS, LAYERS)):
        bias = find_bias_terms(model)[name][layer]
        with torch.no_grad():
            bias.add_(1)
        after = attention_inputs(model)
        with torch.no_grad():
            bias.sub_(1)
        changed = [not torch.equal(a, b) for a, b in zip(before[call], after[call], strict=True)]
        assert dict(zip(ATTENTION, changed, strict=True)) == {name: name == term for name in ATTENTION}
        assert all(torch.equal(a, b) for i in range(call) for a, b in zip(before[i], after[i], strict=True))


@pytest.mark.parametrize(
    "form", [form for form in MODEL_FORMS if "mlp_gate" in architecture_of(make_model(form)).paths]
)
def test_the_gate_closes(form: str) -> None:
    """A gate far below zero shuts off what the other half of the layer says; no bias of that half can."""
    model = make_model(form).eval()
    add_missing_biases(model, ["mlp_gate", "mlp_in"])
    seen: list[Tensor] = []
    bias_owners(model)["mlp_out"][0].register_forward_pre_hook(lambda owner, inputs: seen.append(inputs[0]))
    for term in ("mlp_in", "mlp_gate"):
        with torch.no_grad():
            find_bias_terms(model)[term][0].fill_(-1e4)
            model(input_ids=token_ids(model))
    opened, closed = seen
    assert (opened != 0).all()
    assert (closed == 0).all()


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
