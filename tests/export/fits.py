"""Checkpoints for the tests of this folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from beft_lightning import LanguageTaskModule
from beft_lightning.adapter import keep_trained
from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS
from beft_lightning.fingerprint import fingerprint

SST2, COPA = GLUE_TASKS["sst2"], PROMPT_TASKS["copa"]
HEADED, CAUSAL = AutoModelForSequenceClassification, AutoModelForCausalLM


def fitted(module: LanguageTaskModule, path: Path, seed: int = 7) -> LanguageTaskModule:
    """The module with other values where it is trained, and its checkpoint at ``path``."""
    module.configure_model()
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    content: dict[str, Any] = {"state_dict": module.state_dict()}
    keep_trained(module, content, fingerprint(module))
    module.on_save_checkpoint(content)
    torch.save(content, path)
    return module.eval()


def peft_model(base: Any, folder: Path) -> nn.Module:
    peft = pytest.importorskip("peft")
    model: nn.Module = peft.PeftModel.from_pretrained(base, folder)
    return model
