"""The folder is a model of transformers that computes what was trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from beft_lightning import LanguageTaskModule
from beft_lightning.data import Task
from beft_lightning.errors import ExportError
from beft_lightning.export import export
from beft_lightning.models import load_model
from tests.export.fits import CAUSAL, COPA, HEADED, SST2, fitted
from tests.tiny import logits, save_backbone


@pytest.mark.parametrize("tune", ["value", ["query", "value"], "value.1", "all", "head", "attention_norm"])
def test_a_merged_encoder_is_the_trained_one_to_the_bit(tune: str | list[str], backbone: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "deep" / "out", "hf")
    model = HEADED.from_pretrained(tmp_path / "deep" / "out")
    assert torch.equal(logits(model), logits(module.model))
    assert not torch.equal(logits(model), logits(load_model(HEADED, backbone, num_labels=2)))
    assert model.config.id2label == {0: "negative", 1: "positive"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "deep" / "out")
    assert tokenizer("the film")["input_ids"] == AutoTokenizer.from_pretrained(backbone)("the film")["input_ids"]


@pytest.mark.parametrize("tune", ["low_rank_bias", "vera_bias", "scalar_bias", "random_mask", "random_rows", "full"])
def test_whatever_way_it_was_trained_the_merged_model_is_plain(tune: str, backbone: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    model = HEADED.from_pretrained(tmp_path / "out")
    assert not any("parametrizations" in name for name in model.state_dict())
    torch.testing.assert_close(logits(model), logits(module.model), rtol=1e-6, atol=1e-6)
    assert not torch.equal(logits(model), logits(load_model(HEADED, backbone, num_labels=2)))


def test_a_merged_decoder_is_the_trained_one_to_the_bit(decoder: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(decoder, COPA, tune="value,attention_output"), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    assert torch.equal(logits(CAUSAL.from_pretrained(tmp_path / "out")), logits(module.model))


@pytest.mark.parametrize(
    ("tune", "switches"), [("value", (True, False)), ("mlp_in", (False, True)), ("key,mlp_out", (True, True))]
)
def test_only_the_switches_that_are_needed_are_set(tune: str, switches: tuple[bool, bool], tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", "llama", causal=True, biases=False)
    module = fitted(LanguageTaskModule(backbone, COPA, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    model = CAUSAL.from_pretrained(tmp_path / "out")
    assert (model.config.attention_bias, model.config.mlp_bias) == switches
    torch.testing.assert_close(logits(model), logits(module.model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", [None, "float32", "bfloat16", "float16"])
def test_the_dtype_stored_is_the_one_asked_for(base: str, stored: str | None, backbone: str, tmp_path: Path) -> None:
    module = fitted(LanguageTaskModule(backbone, SST2, tune="value", dtype=base), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf", dtype=stored)
    model = HEADED.from_pretrained(tmp_path / "out")
    dtype = getattr(torch, stored or base)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert module.model is not None
    kept = dict(module.model.named_parameters())
    assert all(torch.equal(p, kept[name].to(dtype)) for name, p in model.named_parameters())


def test_values_too_large_for_a_dtype_are_an_error(backbone: str, tmp_path: Path) -> None:
    module = LanguageTaskModule(backbone, SST2, tune="value")
    module.configure_model()
    assert module.model is not None
    module.model.get_parameter("bert.encoder.layer.1.attention.self.value.bias").data.fill_(1e6)
    fitted(module, tmp_path / "a.ckpt")
    with pytest.raises(ExportError, match=r"trained values of '.*1\.attention.self.value.bias' .* as float16"):
        export(tmp_path / "a.ckpt", tmp_path / "out", "hf", dtype="float16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "metric", "head", "problem"),
    [
        ("multi_label", "micro_f1", HEADED, "multi_label_classification"),
        ("token_classification", "entity_f1", AutoModelForTokenClassification, None),
    ],
)
def test_other_kinds_of_encoders_are_exported_with_their_labels(
    kind: Any, metric: str, head: Any, problem: str | None, backbone: str, tmp_path: Path
) -> None:
    task = Task(name="made up", kind=kind, text=("text",), labels=("B-X", "I-X", "O"), metrics=(metric,))
    module = LanguageTaskModule(backbone, task, tune="value")
    fitted(module, tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "hf")
    model = head.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(model), logits(module.model))
    assert model.config.id2label == {0: "B-X", 1: "I-X", 2: "O"}
    assert model.config.problem_type == problem
