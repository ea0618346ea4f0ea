"""What each value of ``tune`` trains."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from beft_lightning.errors import BeftError, TermError
from beft_lightning.scoring.reference_adam import ReferenceAdam
from beft_lightning.tuning.methods import WAYS, set_up_tuning
from beft_lightning.tuning.peft_adapters import KINDS as ADAPTERS
from tests.tiny import LAYERS, make_model

HEAD = ["bert.pooler.dense.bias", "classifier.weight", "classifier.bias"]


def tuned(tune: str | list[str], model_type: str = "bert") -> list[str]:
    model = make_model(model_type)
    set_up_tuning(model, tune)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_a_term_is_trained_with_the_head() -> None:
    values = [f"bert.encoder.layer.{i}.attention.self.value.bias" for i in range(LAYERS)]
    assert tuned("value") == values + HEAD


@pytest.mark.parametrize("tune", ["query, value.0", ["query", "value.0"]])
def test_terms_can_be_listed(tune: str | list[str]) -> None:
    assert len(tuned(tune)) == LAYERS + 1 + len(HEAD)


def test_head_is_the_head_alone() -> None:
    assert tuned("head") == HEAD


def test_all_is_every_bias_and_the_head() -> None:
    names = tuned("all")
    assert {name for name in names if not name.endswith("bias")} == {"classifier.weight"}
    assert len(names) == sum(name.endswith("bias") for name, _ in make_model("bert").named_parameters()) + 1


def test_missing_biases_are_added() -> None:
    model = make_model("llama", biases=False)
    set_up_tuning(model, "value")
    assert sum(p.numel() for n, p in model.named_parameters() if n.endswith("v_proj.bias")) == LAYERS * 16


@pytest.mark.parametrize("tune", ["everything", "value,worth", ""])
def test_anything_else_is_an_error(tune: str) -> None:
    with pytest.raises(TermError, match="no way of training .* terms: query, key, value"):
        tuned(tune)


def test_full_is_every_parameter_and_needs_full_precision() -> None:
    assert len(tuned("full")) == len(list(make_model("bert").parameters()))
    with pytest.raises(BeftError, match="must be float32, not torch.bfloat16"):
        set_up_tuning(make_model("bert").bfloat16(), "full")


# A prefix has tests of its own: it changes the output from the start.
@pytest.fixture(params=[way for way in sorted(WAYS) if way not in ("full", "prefix")])
def way(request: Any) -> str:
    if request.param in ADAPTERS:
        pytest.importorskip("peft", reason="adapters need peft")
    return str(request.param)


def logits(model: nn.Module) -> Tensor:
    return model.eval()(input_ids=torch.tensor([[2, 5, 6, 7], [2, 8, 9, 3]])).logits


@pytest.mark.parametrize("model_type", ["bert", "opt", "llama"])
def test_every_way_starts_from_the_pretrained_model_and_moves_only_what_it_trains(way: str, model_type: str) -> None:
    model = make_model(model_type)
    before = logits(model)
    # A new head counts among the trained parameters; here there is one in all three.
    set_up_tuning(model, way)
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
    ("way", "options", "message"),
    [
        ("value", {"rank": 4}, "tune 'value' takes no option 'rank'; its tune_options are: none"),
        ("random_mask", {"size": 4}, "takes no option 'size'; its tune_options are: budget, seed"),
        ("random_mask", {"budget": 0}, "a random mask of 0 entries: choose from 1 to"),
        ("low_rank_bias", {"rank": 0}, "must be at least 1, not 0"),
        ("low_rank_bias", {"terms": ["worth"]}, "no term 'worth'"),
        ("lora", {"rang": 4}, "tune_options of 'lora'.*rang"),
    ],
)
def test_an_option_a_way_does_not_take_is_an_error(way: str, options: dict[str, Any], message: str) -> None:
    if way in ADAPTERS:
        pytest.importorskip("peft", reason="adapters need peft")
    with pytest.raises(BeftError, match=message):
        set_up_tuning(make_model("bert"), way, options)


def test_a_model_without_a_head_needs_something_to_train() -> None:
    with pytest.raises(BeftError, match="leaves nothing to train"):
        set_up_tuning(make_model("opt", causal=True), "head")
