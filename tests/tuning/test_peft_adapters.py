"""Adapters of peft's on the projections."""

from typing import Any

import pytest
import torch

from beft_lightning.bias.owners import bias_owners
from beft_lightning.errors import BeftError
from beft_lightning.tuning import METHODS, set_up_tuning
from beft_lightning.tuning.peft_adapters import PROJECTIONS, DoraTuning, LoraTuning, PeftTuning
from tests.tiny import LAYERS, make_model

pytest.importorskip("peft", reason="adapters need peft")


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if issubclass(method, PeftTuning)])
def test_query_key_and_value_of_every_layer_are_adapted_and_nothing_else(name: str) -> None:
    model = make_model("llama")
    owners = bias_owners(model)
    expected = {id(owner) for term in PROJECTIONS for owner in owners[term].values()}
    paths = {path for path, module in model.named_modules() if id(module) in expected}
    set_up_tuning(model, METHODS[name]())
    trained = [name for name, p in model.named_parameters() if p.requires_grad and not name.startswith("score.")]
    assert {name.partition(".lora_")[0].partition(".vera_")[0].partition(".ia3_")[0] for name in trained} == paths
    assert len(paths) == 3 * LAYERS


def test_adapters_are_fp32_over_a_bf16_base() -> None:
    model = make_model("llama").bfloat16()
    set_up_tuning(model, LoraTuning())
    assert {p.dtype for n, p in model.named_parameters() if p.requires_grad and "lora" in n} == {torch.float32}


def test_further_options_reach_the_configuration_of_peft() -> None:
    options = {"r": 2, "lora_dropout": 0.5, "target_modules": ["v_proj"]}
    method = LoraTuning.from_options(options)
    config: Any = method.configuration(make_model("llama"))
    assert (config.r, config.lora_alpha, config.lora_dropout, config.target_modules) == (2, 16, 0.5, {"v_proj"})
    assert method.options() == options
    assert LoraTuning.from_options(method.options()) == method != LoraTuning(r=2)


def test_dora_is_lora_with_a_magnitude() -> None:
    model = make_model("llama")
    configs: list[Any] = [DoraTuning().configuration(model), LoraTuning().configuration(model)]
    assert [config.use_dora for config in configs] == [True, False]


def test_an_option_that_peft_does_not_know_is_found_before_the_model_is_changed() -> None:
    with pytest.raises(BeftError, match=r"tune_options of 'lora'.*rang.*arguments of peft.LoraConfig"):
        LoraTuning.from_options({"rang": 4}).check(make_model("bert"))


def test_without_peft_an_adapter_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beft_lightning.tuning.peft_adapters.find_spec", lambda name: None)
    with pytest.raises(BeftError, match=r"tune 'ia3' needs peft: pip install 'beft-lightning\[peft\]'"):
        METHODS["ia3"]().check(make_model("bert"))
