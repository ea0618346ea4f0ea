"""Load the base of a checkpoint and the trained values, by the names that they have in transformers."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning.bias.found import restore_found
from beft_lightning.bias.fused import bias_name
from beft_lightning.bias.parametrized import MARK, plain_name
from beft_lightning.bias.structure import add_biases, fit_structure
from beft_lightning.checkpoint import (
    FINGERPRINT_KEY,
    FOUND_KEY,
    LAYOUTS_KEY,
    MODEL_KEY,
    TRAINED_KEY,
    check_pretrained,
    check_state_dict,
    held_names,
    model_record,
    read_checkpoint,
)
from beft_lightning.errors import CheckpointError, ExportError
from beft_lightning.export.materialize import materialize
from beft_lightning.export.peft_source import adapter_record, adapter_values, is_adapter
from beft_lightning.fingerprint import check_fingerprint, fingerprint
from beft_lightning.models import load_model
from beft_lightning.tuning import TuningMethod, tuning_method

#: The classes that a fit builds a model with. No other name that a file holds is looked up.
AUTO_CLASSES = (
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForMultipleChoice",
    "AutoModelForCausalLM",
    "AutoModelForImageClassification",
    "AutoModelForAudioClassification",
)


def load_trained(
    path: str | Path, backbone: str | None = None
) -> tuple[dict[str, Any], PreTrainedModel, dict[str, Tensor]]:
    """Load the base that a checkpoint was trained over, and the trained values.

    Args:
        path: The checkpoint, or the folder of an adapter of PEFT's ``BeftConfig``.
        backbone: Location of the base now, if it is not where the fit found it.

    Returns:
        The checkpoint's record of the model; the base, without the trained values; the trained values in fp32 by the
        names they have in the base. Biases that only the fit had are among them, not in the base.

    Raises:
        CheckpointError: If the checkpoint is missing, damaged, not of a fit of this package, or of another base.
        ExportError: If it holds something that cannot be exported.
        BackboneError: If the base cannot be loaded.
    """
    record, checkpoint = read_trained(path, backbone)
    if checkpoint is None:
        model = load_base(record).eval()
        name_labels(model, record["labels"])
        return record, model, adapter_values(model, Path(path))
    model = load_base(record)
    trained = trained_values(model, tuning_method(record["tune"], record["tune_options"]), checkpoint)
    if bad := [name for name, tensor in trained.items() if not tensor.isfinite().all()]:
        raise ExportError(f"{path}: the trained values of {bad[0]} are not finite; the fit has diverged.")
    name_labels(model, record["labels"])
    return record, model.eval(), trained


def read_trained(path: str | Path, backbone: str | None = None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read what was trained, without its base.

    Args:
        path: The checkpoint, or the folder of an adapter of PEFT's ``BeftConfig``.
        backbone: Location of the base now, if it is not where the fit found it.

    Returns:
        The record of the model, and the content of the checkpoint; None of an adapter.

    Raises:
        CheckpointError: If it is missing, damaged, or not of a fit of this package.
        ExportError: If it holds something that cannot be exported.
    """
    if is_adapter(path):
        return adapter_record(Path(path), backbone), None
    checkpoint = read_fit(path)
    record = checkpoint[MODEL_KEY] | ({"backbone": backbone} if backbone else {})
    check_exportable(path, record, tuning_method(record["tune"], record["tune_options"]))
    return record, checkpoint


def read_fit(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that says which parameters were trained, and over which backbone."""
    checkpoint = read_checkpoint(path)
    if TRAINED_KEY not in checkpoint:
        raise CheckpointError(
            f"{path}: a full checkpoint, which does not say what was trained. Give one that AdapterCheckpoint wrote, "
            "as every fit of `python -m beft_lightning` does. Of a whole module, the model's `save_pretrained` writes "
            "a folder that `serve --base` takes."
        )
    model_record(checkpoint, path, "`merge` or `peft_adapter` of beft_lightning.export on your model")
    return checkpoint


def check_exportable(path: str | Path, record: Mapping[str, Any], method: TuningMethod | None) -> None:
    """Check that some format can express what was trained, before the base is loaded."""
    check_pretrained(record, path)
    if method is not None and method.export_obstacle is not None:
        raise ExportError(f"{path}: holds {method.export_obstacle}; only biases, heads and weights are exported.")
    if record["auto_class"] not in AUTO_CLASSES:
        raise CheckpointError(f"{path}: made with an unknown class of model, {record['auto_class']!r}.")


def load_base(record: Mapping[str, Any]) -> PreTrainedModel:
    """Load the model as the fit found it."""
    head: dict[str, Any] = {"num_labels": int(record["num_labels"])} if record["num_labels"] else {}
    if problem := record.get("problem_type"):
        head["problem_type"] = problem
    return load_model(
        getattr(transformers, record["auto_class"]),
        record["backbone"],
        gguf_file=record["gguf_file"],
        dtype=record["dtype"],
        **head,
    )


def trained_values(
    model: PreTrainedModel,
    method: TuningMethod | None,
    checkpoint: Mapping[str, Any],
    identify: Callable[[nn.Module], Mapping[str, list[Any]]] = fingerprint,
) -> dict[str, Tensor]:
    """Return the trained values by their names in ``model``, which has its pretrained biases again afterwards.

    Args:
        model: The base.
        method: The method of the fit; None if it trained bias terms.
        checkpoint: The content of its file.
        identify: Gives the fingerprint of a module.

    Raises:
        CheckpointError: If the checkpoint is of another base.
    """
    module = nn.ModuleDict({"model": model})  # Names in a checkpoint are those in the LightningModule.
    restore_found(module, checkpoint.get(FOUND_KEY, {}))
    trained = held_names(checkpoint)
    fitted = [*trained, *checkpoint[FINGERPRINT_KEY]]
    added = add_biases(module, map(plain_name, fitted))
    pretrained = {name: p.detach().clone() for name, p in module.named_parameters() if p.dim() == 1}
    if method is None:
        fit_structure(module, fitted, layouts=checkpoint.get(LAYOUTS_KEY))
    elif any(MARK in name for name in fitted):
        method.apply(model)
    tensors = {name: tensor for name, tensor in checkpoint["state_dict"].items() if name in trained or MARK in name}
    check_state_dict(module, tensors)
    check_fingerprint(checkpoint[FINGERPRINT_KEY], identify(module), trained)
    names = {plain_name(name) for name in trained}
    tensors |= _materialized(module, tensors, names, pretrained)
    _remove_biases(added)
    return {name.removeprefix("model."): tensors[name].float() for name in sorted(names)}


def _materialized(
    module: nn.Module, tensors: Mapping[str, Tensor], names: Collection[str], pretrained: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Compute the tensors that the trained parts of parametrized tensors amount to.

    Args:
        module: A module with parametrizations. They are removed, and its biases are the pretrained ones again.
        tensors: The checkpoint's values.
        names: Plain names of the tensors wanted.
        pretrained: Pretrained biases by their plain names.

    Returns:
        The tensors by their plain names.
    """
    module.load_state_dict({name: tensor for name, tensor in tensors.items() if MARK in name}, strict=False)
    values = {name: value.clone() for name, value in materialize(module).items() if name in names}
    for name in values.keys() & pretrained.keys():
        module.get_parameter(name).data = pretrained[name]
    return values


def _remove_biases(owners: Iterable[nn.Module]) -> None:
    for owner in owners:
        owner.register_parameter(bias_name(owner), None)


def name_labels(model: PreTrainedModel, labels: Sequence[str]) -> None:
    """Write the labels' names into the model's configuration, if there are any."""
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: index for index, label in enumerate(labels)}
