"""An adapter of PEFT's ``BeftConfig`` as a checkpoint, which a Trainer evaluates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning.checkpoint import CHECKSUM_KEY, FINGERPRINT_KEY, MODEL_KEY, RNG_KEY, TRAINED_KEY, content_checksum
from beft_lightning.export.loading import load_base
from beft_lightning.export.peft_source import adapter_record, adapter_values
from beft_lightning.fingerprint import fingerprint


def write_as_checkpoint(adapter: Path, path: Path, backbone: str, gguf_file: str | None, dtype: str) -> Path:
    """Write an adapter as a checkpoint of trained values.

    Args:
        adapter: The folder of the adapter.
        path: The checkpoint.
        backbone: Location of the base.
        gguf_file: Name of the GGUF file in there.
        dtype: Precision of the base's weights.

    Returns:
        ``path``.

    Raises:
        CheckpointError: If the adapter is damaged, or of another model.
        BackboneError: If the base cannot be loaded.
    """
    record = adapter_record(adapter, backbone) | {"backbone": backbone, "gguf_file": gguf_file, "dtype": dtype}
    model = load_base(record)
    torch.save(_checkpoint(record, model, adapter_values(model, adapter)), path)
    return path


def _checkpoint(record: Mapping[str, Any], model: PreTrainedModel, trained: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return trained values as the content of a checkpoint."""
    prefix = "model."  # names in a checkpoint are those in the LightningModule
    identity = fingerprint(nn.ModuleDict({"model": model}))
    checkpoint: dict[str, Any] = {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": {f"{prefix}{name}": value for name, value in trained.items()},
        TRAINED_KEY: [f"{prefix}{name}" for name in trained],
        FINGERPRINT_KEY: {name: value for name, value in identity.items() if name.removeprefix(prefix) not in trained},
        RNG_KEY: [],
        MODEL_KEY: dict(record),
    }
    return checkpoint | {CHECKSUM_KEY: content_checksum(checkpoint)}
