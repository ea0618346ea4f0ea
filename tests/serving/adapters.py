"""Adapters for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning import LanguageTaskModule
from beft_lightning.data.task import TaskRecord
from beft_lightning.serving import Adapter
from tests.export.fits import fitted
from tests.tiny import VOCABULARY

ROWS = 4


def random_adapter(model: PreTrainedModel, layers: Callable[[str], bool], seed: int) -> Adapter:
    """Random values for the layers whose paths ``layers`` accepts."""
    generator = torch.Generator().manual_seed(seed)
    outputs = {path: child for path, child in model.named_modules() if layers(path)}
    return Adapter({path: torch.randn(_width(child), generator=generator) * 0.3 for path, child in outputs.items()})


def _width(layer: nn.Module) -> int:
    outputs = getattr(layer, "out_features", None) or getattr(layer, "nf", None)
    return int(outputs or layer.get_parameter("weight").shape[0])


def prompts(rows: int = ROWS) -> dict[str, Tensor]:
    """Token ids of several lengths, padded on the left."""
    ids = torch.randint(4, len(VOCABULARY), (rows, 7), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, : row % 3] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


def trained(backbone: str, task: TaskRecord, tune: str, path: Path, seed: int = 7) -> LanguageTaskModule:
    """A fit with values of its own, and its checkpoint at ``path``."""
    module = LanguageTaskModule(backbone, task, tune=tune)
    return fitted(module, path, seed)
