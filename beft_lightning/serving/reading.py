"""Adapters from files: checkpoints of fits, and folders that PEFT reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from beft_lightning.backbones import resolve_backbone
from beft_lightning.checkpoint import ADAPTER_FILE, MODEL_KEY
from beft_lightning.data.task import TaskRecord
from beft_lightning.data.task_records import task_from_dict
from beft_lightning.errors import CheckpointError
from beft_lightning.export.loading import check_exportable, read_fit, trained_values
from beft_lightning.export.peft import ADAPTER_CONFIG, adapter_base, read_values
from beft_lightning.export.peft_source import is_adapter
from beft_lightning.export.task_file import read_record
from beft_lightning.fingerprint import fingerprint
from beft_lightning.serving.adapter import Adapter
from beft_lightning.serving.twin import twin
from beft_lightning.tuning import tuning_method


class AdapterReader:
    """Reads adapters of one base, which is hashed once.

    Args:
        model: The base; unchanged.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._identities: dict[int, list[Any]] = {}

    def read(self, path: str | Path) -> Adapter:
        """Read an adapter, and check that it belongs to the base. No code from the file is run.

        Args:
            path: A checkpoint of a fit, a file or a folder; or the folder of a BEFT adapter in PEFT's format.

        Raises:
            BeftError: If it is missing, damaged, of another base, or changes more than biases and head.
        """
        if Path(path).is_dir():
            check_adapter_folder(Path(path))
        return self._read_peft(Path(path)) if is_adapter(path) else self._read_checkpoint(path)

    def _read_checkpoint(self, path: str | Path) -> Adapter:
        checkpoint = read_fit(path)
        record = checkpoint[MODEL_KEY]
        method = tuning_method(record["tune"], record["tune_options"])
        check_exportable(path, record, method)
        model = twin(self._model, record["num_labels"])
        try:
            trained = trained_values(model, method, checkpoint, self._identify)
        except CheckpointError as error:
            raise CheckpointError(
                f"{path}: trained over {record['backbone']!r}; the base here is {self._model.name_or_path!r}: {error}"
            ) from error
        return self._adapter(path, trained, _task(record))

    def _read_peft(self, folder: Path) -> Adapter:
        base, here = adapter_base(folder), self._model.name_or_path
        # The format has no fingerprint of the base.
        if here and resolve_backbone(base) != here:
            raise CheckpointError(
                f"{folder}: an adapter of {base!r}; the base here is {here!r}. If it is the same one at another place, "
                f"correct base_model_name_or_path in {ADAPTER_CONFIG}."
            )
        deltas, head = read_values(folder)
        return self._checked(folder, Adapter(deltas, head, _task(read_record(folder) or {})))

    def _adapter(self, path: str | Path, trained: Mapping[str, Tensor], task: TaskRecord | None) -> Adapter:
        """Return trained values as an adapter: biases of the body as differences, and the head's values."""
        body = f"{self._model.base_model_prefix}."
        inside = {name: value for name, value in trained.items() if name.startswith(body)}
        if weights := [name for name in inside if name.rpartition(".")[2] != "bias"]:
            raise CheckpointError(
                f"{path}: holds trained values of {weights[0]!r}; only biases and heads differ from row to row. Export "
                "it with the format 'hf', and serve it as a base."
            )
        known = dict(self._model.named_parameters())
        deltas = {
            name.removesuffix(".bias"): value.cpu() - known[name].detach().float().cpu()
            if name in known
            else value.cpu()
            for name, value in inside.items()
        }
        return self._checked(path, Adapter(deltas, {n: trained[n] for n in trained if n not in inside}, task))

    def _checked(self, path: str | Path, adapter: Adapter) -> Adapter:
        for name, value in {**adapter.deltas, **adapter.head}.items():
            if not torch.isfinite(value).all():
                raise CheckpointError(f"{path}: the trained values of {name} are not finite; the fit has diverged.")
        return adapter

    def _identify(self, module: nn.Module) -> dict[str, list[Any]]:
        """Return the fingerprint of a module; matrices of the base are hashed only once."""
        if not self._identities:
            whole = fingerprint(self._model)
            self._identities = {id(p): whole[name] for name, p in self._model.named_parameters() if p.dim() != 1}
        return fingerprint(module, self._identities)


def check_adapter_folder(folder: Path) -> None:
    """Check that a folder is an adapter's, or a checkpoint of a fit (DeepSpeed).

    Raises:
        CheckpointError: If it is not, or holds a whole model.
    """
    if is_adapter(folder) or (folder / ADAPTER_FILE).is_file():
        return
    if (folder / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"the folder {folder.name} has no {ADAPTER_CONFIG}: it is a whole model. Serve the checkpoint that it was "
            "exported from, or export that with the format 'peft'; or serve the folder as a base (serve --base)."
        )
    raise CheckpointError(
        f"the folder {folder.name} has neither {ADAPTER_CONFIG} nor {ADAPTER_FILE}: put checkpoints in as NAME.ckpt."
    )


def _task(record: Mapping[str, Any]) -> TaskRecord | None:
    """Return the task of a record of the model; None if the record does not say all that new inputs need."""
    task = record.get("task")
    if task is None:
        return None
    try:
        return task_from_dict(task, record["labels"])
    except CheckpointError:
        return None
