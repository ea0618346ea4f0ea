"""What is exported computes what was trained, in the programs it is exported for."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from beft_lightning import AdapterCheckpoint, LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.bias import ARCHITECTURES, Architecture, add_missing_biases
from beft_lightning.callbacks.adapter_checkpoint import TRAINED_KEY
from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, SUPER_GLUE_TASKS
from beft_lightning.errors import BackboneError, BeftError, CheckpointError, ExportError
from beft_lightning.export import export, load_trained, merge, peft_adapter
from beft_lightning.models import load_model
from tests.tiny import LAYERS, VOCABULARY, WIDTH, make_model, save_backbone

SST2, COPA = GLUE_TASKS["sst2"], PROMPT_TASKS["copa"]
HEADED, CAUSAL = AutoModelForSequenceClassification, AutoModelForCausalLM


def trained(module: LanguageTaskModule, path: Path) -> LanguageTaskModule:
    """The module with other values where it is trained, and its checkpoint at ``path``."""
    module.configure_model()
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    content: dict[str, Any] = {"state_dict": module.state_dict()}
    AdapterCheckpoint().on_save_checkpoint(None, module, content)  # type: ignore[arg-type]
    module.on_save_checkpoint(content)
    torch.save(content, path)
    return module.eval()


@torch.no_grad()
def logits(model: nn.Module | None, vocabulary: int = len(VOCABULARY)) -> Tensor:
    """What a model says of two sentences, one of them padded on the right, at its real tokens."""
    assert model is not None
    ids = torch.randint(4, vocabulary, (2, 9), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    output: Tensor = model.eval()(input_ids=ids, attention_mask=mask).logits
    return output[mask.bool()] if output.dim() == 3 else output


def peft_model(base: Any, folder: Path) -> nn.Module:
    peft = pytest.importorskip("peft")
    model: nn.Module = peft.PeftModel.from_pretrained(base, folder)
    return model


@pytest.mark.parametrize("tune", ["value", "query,value", "value.1", "all", "head", "attention_norm"])
def test_a_merged_encoder_is_the_trained_one_to_the_bit(tune: str, backbone: str, tmp_path: Path) -> None:
    module = trained(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "deep" / "out", "hf")
    model = HEADED.from_pretrained(tmp_path / "deep" / "out")
    assert torch.equal(logits(model), logits(module.model))
    assert not torch.equal(logits(model), logits(load_model(HEADED, backbone, num_labels=2)))
    assert model.config.id2label == {0: "negative", 1: "positive"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "deep" / "out")
    assert tokenizer("the film")["input_ids"] == AutoTokenizer.from_pretrained(backbone)("the film")["input_ids"]


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.parametrize("tune", ["value", "query,mlp_out", "value.1"])
def test_peft_computes_what_was_trained_of_an_encoder(model_type: str, tune: str, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "base", model_type)
    module = trained(LanguageTaskModule(backbone, SST2, tune=tune), tmp_path / "a.ckpt")
    export(tmp_path / "a.ckpt", tmp_path / "out", "peft")
    base = HEADED.from_pretrained(backbone, num_labels=2)
    untouched = logits(base)
    adapted = peft_model(base, tmp_path / "out")
    torch.testing.assert_close(logits(adapted), logits(module.model), rtol=1e-5, atol=1e-6)
    assert (logits(adapted) - untouched).abs().max() > 1e-2
