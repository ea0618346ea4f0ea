"""Load what a fit or an export has written as a model that predicts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from beft_lightning.adapter import load_values
from beft_lightning.bias.found import restore_found
from beft_lightning.checkpoint import FOUND_KEY, check_pretrained, model_record, read_checkpoint
from beft_lightning.data.task import TaskRecord
from beft_lightning.data.task_records import task_from_dict
from beft_lightning.errors import BeftError, CheckpointError
from beft_lightning.export.loading import name_labels
from beft_lightning.export.materialize import materialize
from beft_lightning.export.peft import ADAPTER_CONFIG, adapter_base, add_adapter
from beft_lightning.export.task_file import infer_record, read_record
from beft_lightning.models import DTYPES, load_model
from beft_lightning.predictor import Predictor
from beft_lightning.processors import load_processor
from beft_lightning.tasks.objectives import make_objective
from beft_lightning.tuning import set_up_tuning, tuning_method


def load(path: str | Path, *, backbone: str | None = None, device: str | torch.device | None = None) -> Predictor:
    """Load a trained model that predicts new inputs.

    Args:
        path: A checkpoint of a fit of :class:`~beft_lightning.LanguageTaskModule`, or a folder that ``export`` has
            written, of the format ``hf`` or ``peft``.
        backbone: Location of the base now, if it is not where the fit found it.
        device: Where to compute; by default on an accelerator if there is one.

    Raises:
        CheckpointError: If it is missing, damaged, trained over another base, or does not say how inputs are encoded.
        BackboneError: If the base cannot be loaded.
        BeftError: If there is no such device.
    """
    folder = Path(path)
    if (folder / ADAPTER_CONFIG).is_file():
        model, tokenizer, task, dtype = _load_adapter(folder, backbone)
    elif (folder / "config.json").is_file():
        model, tokenizer, task, dtype = _load_folder(folder)
    else:
        model, tokenizer, task, dtype = _load_checkpoint(path, backbone)
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    try:
        model.to(device)  # type: ignore[arg-type]
    except (AssertionError, RuntimeError) as error:  # what torch raises for a device that is not there, or unknown
        raise BeftError(
            f"device {device}: cannot be used ({error}). Give cpu, or an accelerator that is there."
        ) from error
    # Biases and head are fp32, as in the fit.
    return Predictor(model, tokenizer, task, DTYPES[dtype] if dtype in ("bfloat16", "float16") else None)


#: The kinds whose records have always said all there is; those of others began to say it together with ``labels``.
_ALWAYS_COMPLETE = ("classification", "regression")
#: Model, tokenizer or other processor, task, and the name of the precision of the weights.
_Loaded = tuple[PreTrainedModel, Any, TaskRecord, str]


def _load_checkpoint(path: str | Path, backbone: str | None) -> _Loaded:
    checkpoint = read_checkpoint(path)
    record = model_record(checkpoint, path, "beft_lightning.load_adapter(module, path)")
    check_pretrained(record, path)
    if bad := [name for name, tensor in checkpoint["state_dict"].items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"{path}: the trained values of {bad[0]} are not finite; the fit has diverged.")
    task = _task(record, path)
    model, tokenizer = _load_base(task, backbone or record["backbone"], record)
    module = nn.ModuleDict({"model": model})  # Names in a checkpoint are those in the LightningModule.
    restore_found(module, checkpoint.get(FOUND_KEY, {}))
    method = tuning_method(record["tune"], record["tune_options"])
    if method is not None:
        set_up_tuning(model, method)
    load_values(module, checkpoint, path)
    materialize(model)
    return model, tokenizer, task, record["dtype"]


def _load_folder(folder: Path) -> _Loaded:
    record = read_record(folder) or infer_record(folder)
    task = _task(record, folder)
    model, tokenizer = _load_base(task, str(folder), record | {"gguf_file": None})
    return model, tokenizer, task, record["dtype"]


def _load_adapter(folder: Path, backbone: str | None) -> _Loaded:
    record = read_record(folder)
    if record is None:
        raise CheckpointError(
            f"{folder}: an adapter that does not say which task it was trained on: `validate --config CONFIG "
            "--ckpt_path FOLDER` evaluates it; for new texts, export a checkpoint of a fit."
        )
    task = _task(record, folder)
    model, tokenizer = _load_base(task, backbone or adapter_base(folder), record)
    add_adapter(model, folder)
    return model, tokenizer, task, record["dtype"]


def _load_base(task: TaskRecord, backbone: str, record: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    """Load a backbone under the head of a task, and its tokenizer or other processor."""
    tokenizer = load_processor(task.kind, backbone, record["gguf_file"])
    objective = make_objective(task, lambda: tokenizer)
    model = load_model(
        objective.auto_class, backbone, gguf_file=record["gguf_file"], dtype=record["dtype"], **objective.config
    )
    name_labels(model, objective.output_names)
    return model, tokenizer


def _task(record: Mapping[str, Any], path: str | Path) -> TaskRecord:
    """Return the task of a record of the model."""
    task = record.get("task")
    if task is None or ("labels" not in task and task["kind"] not in _ALWAYS_COMPLETE):
        raise CheckpointError(
            f"{path}: from a version whose checkpoints do not say how texts are encoded: use `predict --config CONFIG "
            f"--ckpt_path {path}` with the config.yaml of its fit, or continue the fit by an epoch, which writes it."
        )
    try:
        return task_from_dict(task, record["labels"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
