"""What each value of ``tune`` trains."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from beft_lightning.bias import ReferenceAdam
from beft_lightning.errors import BeftError, TermError
from beft_lightning.models import load_model
from beft_lightning.tasks.adapters import KINDS as ADAPTERS
from beft_lightning.tasks.tuning import WAYS, set_up_tuning
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


@pytest.mark.parametrize(("way", "options"), [("random_mask", {"budget": 100}), ("random_rows", {})])
def test_a_random_mask_trains_the_entries_it_drew_and_the_seed_decides(way: str, options: dict[str, Any]) -> None:
    def moved(seed: int) -> dict[str, Tensor]:
        model = make_model("bert")
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        set_up_tuning(model, way, {**options, "seed": seed})
        names = [name for name, p in model.named_parameters() if p.requires_grad and "original" in name]
        assert way != "random_mask" or sum(model.get_parameter(name).numel() for name in names) == 100
        changed = {}
        for name in names:
            owner, _, weight = name.removesuffix(".original").rpartition(".parametrizations.")
            with torch.no_grad():
                model.get_parameter(name).add_(1.0)
            changed[f"{owner}.{weight}"] = getattr(model.get_submodule(owner), weight) != weights[f"{owner}.{weight}"]
            assert changed[f"{owner}.{weight}"].sum() == model.get_parameter(name).numel()
        return changed

    first, again, other = moved(0), moved(0), moved(1)
    assert {name: mask.tolist() for name, mask in first.items()} == {n: mask.tolist() for n, mask in again.items()}
    assert {name: mask.tolist() for name, mask in first.items()} != {n: mask.tolist() for n, mask in other.items()}


def test_rows_of_gpt2s_transposed_layers_are_rows() -> None:
    model = make_model("gpt2")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    set_up_tuning(model, "random_rows", {"seed": 0})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".original"):
                parameter.add_(1.0)
    name = "transformer.h.0.mlp.c_fc"  # 32 inputs, 128 outputs: four rows of 32 or a column of 128
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    changed = weight.ne(before[f"{name}.weight"])
    assert changed.shape == (32, 128)
    assert changed.sum() == 128
    assert changed.all(dim=0).sum() == 4 or changed.all(dim=1).sum() == 1


@pytest.mark.parametrize("way", ["random_mask", "random_rows"])
def test_quantised_weights_have_no_entries_to_train(way: str, backbone: str) -> None:
    pytest.importorskip("bitsandbytes", reason="quantised weights need bitsandbytes")
    model = load_model(AutoModelForSequenceClassification, backbone, dtype="int8", num_labels=2)
    with pytest.raises(TermError, match="the weights are quantised"):
        set_up_tuning(model, way)


def test_the_default_mask_has_as_many_entries_as_there_are_biases() -> None:
    biases = sum(p.numel() for n, p in make_model("bert").named_parameters() if n.endswith("bias"))
    model = make_model("bert")
    set_up_tuning(model, "random_mask")
    values = [p for n, p in model.named_parameters() if n.endswith(".original")]
    assert sum(p.numel() for p in values) == biases
    assert all(p.requires_grad for p in values)


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


def test_adapters_are_fp32_over_a_bf16_base() -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    model = make_model("llama").bfloat16()
    set_up_tuning(model, "lora")
    assert {p.dtype for n, p in model.named_parameters() if p.requires_grad and "lora" in n} == {torch.float32}


def test_a_model_without_a_head_needs_something_to_train() -> None:
    with pytest.raises(BeftError, match="leaves nothing to train"):
        set_up_tuning(make_model("opt", causal=True), "head")
