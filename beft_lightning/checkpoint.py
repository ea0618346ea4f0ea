"""The checkpoint format: its keys, how a file is read, and how it is checked against a model."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import torch
from torch import nn

from beft_lightning.bias.architecture import Fused
from beft_lightning.bias.found import architectures_of_record
from beft_lightning.checksums import checksum
from beft_lightning.errors import ArchitectureError, CheckpointError
from beft_lightning.fingerprint import is_identity
from beft_lightning.parameters import full_shape, named_parameters

#: Key of the identity of the frozen weights; see :mod:`~beft_lightning.fingerprint`.
FINGERPRINT_KEY = "beft_fingerprint"
#: Key of the names of the trained parameters, in the order of the optimizer's state.
TRAINED_KEY = "beft_trained"
#: Key of the names of the frozen parameters that an earlier fit of the same module trained, if there are any.
TRAINED_BEFORE_KEY = "beft_trained_before"
#: Key of the record of how the model is made, so that no configuration is needed to make it again.
MODEL_KEY = "beft_model"
#: How each layer whose bias is split into terms orders its outputs: its path -> the fields of a ``Fused``.
LAYOUTS_KEY = "beft_layouts"
#: Where discovery found the bias terms: name of the watched model -> its architectures, as a user would write them.
FOUND_KEY = "beft_found"
#: Key of the states of the random number generators of each process.
RNG_KEY = "beft_rng"
#: Key of the checksum of the values and of the records above.
CHECKSUM_KEY = "beft_checksum"
#: The file with everything but the optimizer's state in a checkpoint that is a folder (DeepSpeed).
ADAPTER_FILE = "adapter.ckpt"

#: Entries of the record under MODEL_KEY -> their types.
_MODEL_ENTRIES: Mapping[str, type | UnionType] = {
    "auto_class": str,
    "backbone": str,
    "gguf_file": str | None,
    "random_init": bool,
    "dtype": str,
    "tune": str,
    "tune_options": dict,
    "num_labels": int | None,
    "labels": list,
}
#: Entries of the record of the task under MODEL_KEY -> their types. Checkpoints of the first version have none.
TASK_ENTRIES: Mapping[str, type] = {"name": str, "kind": str, "max_length": int}


def checkpoint_file(path: str | Path) -> Path:
    """Return the file with the trained values: the checkpoint itself, or one inside it (DeepSpeed).

    Raises:
        CheckpointError: If the path is a folder without such a file.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint file, but a folder without {ADAPTER_FILE}. Where a strategy writes a folder, "
            "give the folder that a fit with BiasSelectionCallback or AdapterCheckpoint has left."
        )
    return path / ADAPTER_FILE


def local_file(path: Any) -> Any:
    """Return the file in a checkpoint that is a local folder; any other path as it is."""
    return checkpoint_file(path) if Path(path).is_dir() else path


def trainable_names(module: nn.Module) -> list[str]:
    """Return the names of the parameters being trained, in the module's order."""
    return [name for name, parameter in named_parameters(module) if parameter.requires_grad]


def held_names(checkpoint: Mapping[str, Any]) -> set[str]:
    """Return the names of the parameters whose values a checkpoint of trained values holds."""
    return {*checkpoint[TRAINED_KEY], *checkpoint.get(TRAINED_BEFORE_KEY, ())}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint of any strategy without running any code from it.

    Raises:
        CheckpointError: If it is missing, unreadable, damaged, or no Lightning checkpoint.
    """
    checkpoint = read_file(checkpoint_file(path))
    if "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: a file of torch, but not a Lightning checkpoint (it has no 'state_dict').")
    return checkpoint


def model_record(checkpoint: Mapping[str, Any], path: str | Path, instead: str) -> dict[str, Any]:
    """Return what a checkpoint says of its model.

    Args:
        checkpoint: What :func:`read_checkpoint` gives.
        path: Its file, for the error.
        instead: What to do with the checkpoint of a module of one's own, for the error.

    Raises:
        CheckpointError: If it does not say how to make its model.
    """
    if MODEL_KEY not in checkpoint:
        raise CheckpointError(
            f"{path}: does not say which backbone it was trained on; only fits of LanguageTaskModule do. For a module "
            f"of your own, call {instead}."
        )
    return dict(checkpoint[MODEL_KEY])


def check_pretrained(record: Mapping[str, Any], path: str | Path) -> None:
    """Check that the frozen weights of a checkpoint can be loaded.

    Args:
        record: Its :func:`model_record`.
        path: Its file, for the error.

    Raises:
        CheckpointError: If they were random.
    """
    if record["random_init"]:
        raise CheckpointError(
            f"{path}: trained over random weights (random_init), which no checkpoint holds. Train over a pretrained "
            "backbone to use or export the result."
        )


def read_file(path: Path, *, map_location: Any = "cpu", weights_only: bool = True) -> dict[str, Any]:
    """Read a local file of :func:`torch.save` and check that it is whole.

    Args:
        path: The file.
        map_location: See :func:`torch.load`.
        weights_only: Load tensors and plain types only; anything else may run code from the file.

    Raises:
        CheckpointError: If it is missing, unreadable or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file. A fit leaves one in checkpoints/last.ckpt.")
    try:
        # torch reads damaged files, too (https://github.com/pytorch/pytorch/issues/28858).
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        checkpoint = torch.load(path, map_location=map_location, weights_only=weights_only)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # zipfile and torch raise whatever the broken part raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: not a readable checkpoint (damaged, cut short, or holding more than tensors and plain types, "
            f"which is never executed): {reason}"
        ) from error
    return check_content(checkpoint, path)


def check_content(checkpoint: Any, path: Any) -> dict[str, Any]:
    """Check the records of this package in a checkpoint, and the values by their checksum, where there is one.

    Args:
        checkpoint: What a file holds.
        path: The file, for the message.

    Raises:
        CheckpointError: If the values have changed since they were saved, or a record is malformed.
    """
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path}: a file of torch, but not a Lightning checkpoint (it holds no dictionary).")
    if CHECKSUM_KEY in checkpoint and checkpoint[CHECKSUM_KEY] != content_checksum(checkpoint):
        raise CheckpointError(
            f"{path}: damaged: its values or records are not those that were saved (their checksum differs). Use "
            "another checkpoint or a copy."
        )
    if problem := _malformed(checkpoint):
        raise CheckpointError(f"{path}: malformed: {problem}. Use a checkpoint that a fit has written.")
    return checkpoint


def content_checksum(checkpoint: Mapping[str, Any]) -> str:
    """Return the checksum of a checkpoint's values and of this package's records in it."""
    records = {key: value for key, value in checkpoint.items() if key.startswith("beft_") and key != CHECKSUM_KEY}
    return checksum({"state_dict": checkpoint.get("state_dict"), **dict(sorted(records.items()))})


def _malformed(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the fault in this package's records of a checkpoint; None if there is none, or no record."""
    state = checkpoint.get("state_dict", {})
    if not isinstance(state, dict):
        return "'state_dict' is no dictionary"
    if TRAINED_KEY in checkpoint:
        for key in (TRAINED_KEY, TRAINED_BEFORE_KEY):
            names = checkpoint.get(key, [])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                return f"{key!r} is no list of names"
        if missing := [name for name in held_names(checkpoint) if not isinstance(state.get(name), torch.Tensor)]:
            return f"{missing[0]!r} was trained, and there is no value of it"
        for key in (FINGERPRINT_KEY, RNG_KEY):
            if key not in checkpoint:
                return f"there is no {key!r}"
    elif FINGERPRINT_KEY in checkpoint or RNG_KEY in checkpoint:
        return f"there is no {TRAINED_KEY!r}"
    fingerprints = checkpoint.get(FINGERPRINT_KEY, {})
    if not isinstance(fingerprints, dict) or not all(map(is_identity, fingerprints.values())):
        return f"{FINGERPRINT_KEY!r} does not identify weights"
    states = checkpoint.get(RNG_KEY, [])
    if not isinstance(states, list) or not all(isinstance(of_one, dict) for of_one in states):
        return f"{RNG_KEY!r} is no list of states"
    record = checkpoint.get(MODEL_KEY)
    for entry, kind in _MODEL_ENTRIES.items() if MODEL_KEY in checkpoint else ():
        if not isinstance(record, dict) or entry not in record or not isinstance(record[entry], kind):
            return f"{MODEL_KEY!r} has no valid {entry!r}"
    layouts = checkpoint.get(LAYOUTS_KEY, {})
    if not isinstance(layouts, dict) or not all(map(_is_layout, layouts.values())):
        return f"{LAYOUTS_KEY!r} does not say how fused biases are divided"
    if not _is_found(checkpoint.get(FOUND_KEY, {})):
        return f"{FOUND_KEY!r} does not say where bias terms are"
    return _malformed_task(record["task"]) if isinstance(record, dict) and "task" in record else None


def _is_layout(value: Any) -> bool:
    """Return whether a value has the form of a fused bias' layout: its parts and groups, and the bias' name."""
    if not isinstance(value, dict) or value.keys() != {"parts", "groups", "bias"}:
        return False
    parts, groups, bias = value["parts"], value["groups"], value["bias"]
    if not isinstance(parts, dict) or not parts or not all(isinstance(text, str) for text in (*parts, bias)):
        return False
    if not all(type(count) is int for count in (*parts.values(), groups)):
        return False
    try:
        Fused(**value)
    except ArchitectureError:
        return False
    return True


def _is_found(value: Any) -> bool:
    """Return whether a value says for each of some models where its terms were found."""
    if not isinstance(value, dict) or not all(isinstance(entries, list) for entries in value.values()):
        return False
    try:
        found = [one for entries in value.values() for one in architectures_of_record(entries)]
    except ArchitectureError:
        return False
    return all(isinstance(text, str) for text in [*value, *(path for one in found for path in one.paths.values())])


def _malformed_task(task: Any) -> str | None:
    """Return what is wrong with the record of a task; None if nothing is."""
    for entry, kind in TASK_ENTRIES.items():
        if not isinstance(task, dict) or not isinstance(task.get(entry), kind):
            return f"the task of {MODEL_KEY!r} has no valid {entry!r}"
    text = task.get("text", [])
    if not isinstance(text, list) or not all(isinstance(name, str) for name in text):
        return f"the task of {MODEL_KEY!r} has no valid 'text'"
    return None


def check_state_dict(module: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Check that the module has all tensors of a state, in the same shapes.

    Args:
        module: The module to load into.
        state_dict: Some of its tensors.

    Raises:
        CheckpointError: If a name or a shape does not fit, or nothing is there.
    """
    known = {name: full_shape(tensor) for name, tensor in module.state_dict(keep_vars=True).items()}
    if not state_dict:
        raise CheckpointError("the checkpoint holds no trained tensors.")
    for name, tensor in state_dict.items():
        if name not in known:
            raise CheckpointError(
                f"the checkpoint belongs to another model: it holds {name!r}, which this model lacks. "
                "Give the model it was trained with (of LanguageTaskModule: backbone, task and `tune`)."
            )
        if known[name] != tensor.shape:
            raise CheckpointError(
                f"the checkpoint belongs to another model: {name!r} has shape {tuple(tensor.shape)} there and "
                f"{tuple(known[name])} here. Give the pretrained model it was trained with."
            )
