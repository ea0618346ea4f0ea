"""The meaning of ``tune``, and what holds for every method."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from beft_lightning.errors import BeftError, TermError
from beft_lightning.scoring.reference_adam import ReferenceAdam
from beft_lightning.tuning import AUTO, METHODS, TuningMethod, set_up_tuning, tuning_method
from beft_lightning.tuning.peft_adapters import PeftTuning
from beft_lightning.tuning.terms import TermTuning
from tests.tiny import make_model


@pytest.mark.parametrize("tune", ["query, value.0", ["query", "value.0"]])
def test_what_is_no_methods_name_names_terms(tune: str | list[str]) -> None:
    method = tuning_method(tune)
    assert method == TermTuning(("query", "value.0"))
    assert (method.tune, method.options()) == ("query,value.0", {})


def test_auto_is_no_method() -> None:
    assert tuning_method(AUTO) is None
    with pytest.raises(BeftError, match="tune 'auto' leaves it to a callback"):
        tuning_method(AUTO, {"rank": 4})


@pytest.mark.parametrize("tune", ["everything", "value,worth", "value,lora", ""])
def test_anything_else_is_an_error(tune: str) -> None:
    method = tuning_method(tune)
    assert method is not None
    with pytest.raises(TermError, match="no method of training .*: all, head, .*; the terms: query, key, value"):
        method.check(make_model("bert"))


@pytest.mark.parametrize(
    ("tune", "options", "message"),
    [
        ("value", {"rank": 4}, "tune 'value' takes no option 'rank'; its tune_options are: none"),
        ("head", {"rank": 4}, "tune 'head' takes no option 'rank'; its tune_options are: none"),
        ("random_mask", {"size": 4}, "takes no option 'size'; its tune_options are: budget, seed"),
        ("random_mask", {"budget": "many"}, r"tune_options of 'random_mask': budget must be int \| None, not 'many'"),
        ("low_rank_bias", {"rank": True}, "rank must be int, not True"),
        ("low_rank_bias", {"terms": "value"}, r"terms must be list\[str\], not 'value'"),
        ("low_rank_bias", {"terms": [1]}, r"terms must be list\[str\], not \[1\]"),
        ("low_rank_bias", {"rank": 0}, "must be at least 1, not 0"),
        ("lora", {"lora_alpha": "high"}, "lora_alpha must be float, not 'high'"),
    ],
)
def test_an_option_that_a_method_does_not_take_is_an_error(tune: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BeftError, match=message):
        tuning_method(tune, options)


def test_a_budget_is_checked_against_the_model() -> None:
    method = tuning_method("random_mask", {"budget": 0})
    assert method is not None
    with pytest.raises(BeftError, match="a random mask of 0 entries: choose from 1 to"):
        set_up_tuning(make_model("bert"), method)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_made_again_from_its_name_and_options(name: str) -> None:
    method = METHODS[name]()
    assert (method.tune, method.options()) == (name, {})
    with pytest.raises(FrozenInstanceError):
        method.tune_options = {}  # type: ignore[attr-defined]
    changed = {"seed": 3} if method.draws_at_random else {"rank": 3, "r": 3, "terms": ["key"]}
    known = {field.name for field in METHODS[name].option_fields()}
    options = {option: value for option, value in changed.items() if option in known}
    again = tuning_method(name, options)
    assert again is not None
    assert again.options() == options
    assert tuning_method(again.tune, again.options()) == again
    assert (again == method) == (not options)


def test_those_that_draw_and_those_that_change_matrices() -> None:
    assert {n for n, m in METHODS.items() if m().draws_at_random} == {"random_mask", "random_rows", "prefix"}
    assert {n for n, m in METHODS.items() if m.changes_matrices} == {"full", "random_mask", "random_rows"}


# A prefix has tests of its own: it changes the output from the start.
@pytest.fixture(params=[name for name in sorted(METHODS) if name not in ("full", "prefix")])
def method(request: Any) -> TuningMethod:
    chosen = METHODS[request.param]()
    if isinstance(chosen, PeftTuning):
        pytest.importorskip("peft", reason="adapters need peft")
    return chosen


def logits(model: nn.Module) -> Tensor:
    return model.eval()(input_ids=torch.tensor([[2, 5, 6, 7], [2, 8, 9, 3]])).logits


@pytest.mark.parametrize("model_type", ["bert", "opt", "llama"])
def test_every_method_starts_from_the_pretrained_model_and_moves_only_what_it_trains(
    method: TuningMethod, model_type: str
) -> None:
    model = make_model(model_type)
    before = logits(model)
    # A new head counts among the trained parameters; here there is one in all three.
    set_up_tuning(model, method)
    # VeRA alone is not exact at the start: its 0.1 meets a zero vector, as in the published adapter.
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-6)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert trained
    assert frozen
    optimizer = ReferenceAdam(trained.values(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        logits(model).logsumexp(-1).square().sum().backward()
        optimizer.step()
    assert (logits(model) - before).abs().max() > 1e-4
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in frozen.items())
    # No optimizer state for anything frozen.
    state = sum(tensor.numel() for values in optimizer.state.values() for tensor in values.values() if tensor.dim())
    assert state == 2 * sum(p.numel() for p in trained.values())


@pytest.mark.parametrize(
    ("tune", "options"),
    [
        ("low_rank_bias", {"terms": None, "rank": 2}),
        ("scalar_bias", {"terms": None, "rank": 8}),
        ("ia3", {"feedforward_modules": "mlp"}),
    ],
)
def test_options_that_earlier_versions_took_are_taken(tune: str, options: dict[str, Any]) -> None:
    method = tuning_method(tune, options)
    assert method is not None
    assert getattr(method, "terms", ["value"]) == ["value"]
