"""A trained model for other programs: as a PEFT adapter, or as a plain folder of transformers."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning.bias import split_fused_biases
from beft_lightning.bias.materialize import MARK, materialize, plain_name
from beft_lightning.checkpoint import (
    FINGERPRINT_KEY,
    MODEL_KEY,
    TRAINED_KEY,
    check_state_dict,
    read_checkpoint,
)
from beft_lightning.errors import CheckpointError, ExportError
from beft_lightning.export.merging import add_biases, merge
from beft_lightning.files import check_new_folder, write_folder_atomically
from beft_lightning.fingerprint import check_fingerprint, fingerprint
from beft_lightning.models import DTYPES, check_dtype, load_model, load_tokenizer, resolve_backbone
from beft_lightning.tuning.methods import WAYS, set_up_tuning
from beft_lightning.tuning.peft_adapters import KINDS as ADAPTERS

#: The classes that a fit builds a model with -> what PEFT calls their task.
_CLASSES: Mapping[str, str | None] = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForMultipleChoice": None,
    "AutoModelForCausalLM": "CAUSAL_LM",
}


def export(
    checkpoint: str | Path, out: str | Path, form: str, *, dtype: str | None = None, backbone: str | None = None
) -> Path:
    """Write what a fit has trained in a format that other programs read.

    Args:
        checkpoint: A checkpoint of a fit of :class:`~beft_lightning.LanguageTaskModule`.
        out: Folder to make. It appears when everything is written.
        form: ``peft``: an adapter beside the unchanged base, loaded by ``PeftModel.from_pretrained``. ``hf``: the
            whole model with the trained values in it, loaded by ``from_pretrained``.
        dtype: With ``hf``, the precision to store, a key of :data:`~beft_lightning.models.DTYPES`; by default the one
            that the base had in the fit. The biases are merged in fp32 before.
        backbone: Where the base is now, if it is not where the fit found it.

    Returns:
        The folder.

    Raises:
        ExportError: If the format is unknown or cannot express what was trained, or ``out`` is taken.
        CheckpointError: If the checkpoint is missing, damaged, not of such a fit, or the base is another one.
        BackboneError: If the base cannot be loaded.
    """
    if form not in FORMATS:
        raise ExportError(f"format {form!r} is unknown; choose one of: {', '.join(FORMATS)}.")
    if dtype is not None:
        check_dtype(dtype)
        if form == "peft":
            raise ExportError("a PEFT adapter is always fp32: leave out the dtype, or use the format 'hf'.")
    check_new_folder(out)
    record, model, trained = load_trained(checkpoint, backbone)
    write = FORMATS[form](record, model, trained, dtype or record["dtype"])
    write_folder_atomically(out, write)
    rank_zero_info(f"Wrote the trained model to {out}")
    return Path(out)


def load_trained(
    path: str | Path, backbone: str | None = None
) -> tuple[dict[str, Any], PreTrainedModel, dict[str, Tensor]]:
    """The base that a checkpoint was trained over, and the trained tensors.

    Args:
        path: The checkpoint.
        backbone: Where the base is now, if it is not where the fit found it.

    Returns:
        The checkpoint's record of the model; the base, without the trained values; the trained values by the names
        they have in the base. Biases that only the fit had are among them, not in the base.

    Raises:
        CheckpointError: See :func:`export`.
    """
    checkpoint = read_checkpoint(path)
    if TRAINED_KEY not in checkpoint:
        raise CheckpointError(
            f"{path}: a full checkpoint, which does not say what was trained. Export one that AdapterCheckpoint wrote, "
            "as every fit of `python -m beft_lightning` does; a whole module has its own `save_pretrained`."
        )
    if MODEL_KEY not in checkpoint:
        raise CheckpointError(
            f"{path}: does not say which backbone it was trained on; only fits of LanguageTaskModule do. For a module "
            "of your own, call `merge` or `peft_adapter` of beft_lightning.export.export on your model."
        )
    record = checkpoint[MODEL_KEY] | ({"backbone": backbone} if backbone else {})
    if record["random_init"]:
        raise ExportError(
            f"{path}: trained over random weights (random_init), which no checkpoint holds. Train over a pretrained "
            "backbone to export the result."
        )
    if record["tune"] in ADAPTERS:
        raise ExportError(
            f"{path}: holds an adapter of peft's ({record['tune']}); only biases, heads and weights are exported."
        )
    if record["tune"] == "prefix":
        raise ExportError(
            f"{path}: holds a prefix, which is no part of the model's own weights; only biases, heads and weights are "
            "exported."
        )
    if record["auto_class"] not in _CLASSES:  # Nothing that a file says is called unseen.
        raise CheckpointError(f"{path}: made with an unknown class of model, {record['auto_class']!r}.")
    head: dict[str, Any] = {"num_labels": int(record["num_labels"])} if record["num_labels"] else {}
    model = load_model(
        getattr(transformers, record["auto_class"]),
        record["backbone"],
        gguf_file=record["gguf_file"],
        dtype=record["dtype"],
        **head,
    )
    names = set(checkpoint[TRAINED_KEY])
    whole = nn.ModuleDict({"model": model})  # as it is named in the LightningModule
    there = [*names, *checkpoint[FINGERPRINT_KEY]]
    added = add_biases(whole, map(plain_name, there))
    pretrained = {name: p.detach().clone() for name, p in whole.named_parameters() if p.dim() == 1}
    if any(MARK in name for name in there):
        _parametrize(model, record)
    tensors = {name: tensor for name, tensor in checkpoint["state_dict"].items() if name in names or MARK in name}
    check_state_dict(whole, tensors)
    check_fingerprint(checkpoint[FINGERPRINT_KEY], fingerprint(whole), names)
    tensors |= _materialized(whole, tensors, names, pretrained)
    for owner in added:
        owner.register_parameter("bias", None)
    if record["labels"]:
        model.config.id2label = dict(enumerate(record["labels"]))
        model.config.label2id = {label: i for i, label in enumerate(record["labels"])}
    plain = sorted({plain_name(name) for name in names})
    return record, model.eval(), {name.removeprefix("model."): tensors[name].float() for name in plain}


def _parametrize(model: PreTrainedModel, record: Mapping[str, Any]) -> None:
    """Make the base's parameters those that the fit had."""
    tune = record["tune"]
    if tune in WAYS:
        set_up_tuning(model, tune, record["tune_options"])
    else:
        split_fused_biases(model)


def _materialized(
    whole: nn.Module, tensors: Mapping[str, Tensor], names: Collection[str], pretrained: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What the trained parts of parametrised tensors came to; the module has its pretrained biases again."""
    whole.load_state_dict({name: tensor for name, tensor in tensors.items() if MARK in name}, strict=False)
    trained = {plain_name(name) for name in names}
    values = {name: value.clone() for name, value in materialize(whole).items() if name in trained}
    for name in values.keys() & pretrained.keys():
        whole.get_parameter(name).data = pretrained[name]
    return values


def peft_adapter(model: PreTrainedModel, trained: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The trained values as PEFT's ``BeftConfig`` keeps them (peft 0.20 or newer).

    PEFT adds a vector to the output of a linear layer, so that a bias is stored as its difference from the base's;
    the modules of the head are stored whole.

    Args:
        model: The base, unchanged.
        trained: Trained values by their names in ``model``; biases it lacks count from zero.

    Returns:
        What ``adapter_config.json`` says of the modules, and the tensors of ``adapter_model.safetensors``, all fp32.

    Raises:
        ExportError: If something was trained that is neither the bias of a linear layer nor part of the head.
    """
    base = f"{model.base_model_prefix}."
    inside = {name: value for name, value in trained.items() if name.startswith(base) or model.base_model is model}
    heads = list(dict.fromkeys(name.partition(".")[0] for name in trained if name not in inside))
    tensors: dict[str, Tensor] = {}
    targets = []
    for name, value in inside.items():
        path, _, kind = name.rpartition(".")
        owner = model.get_submodule(path)
        if kind != "bias" or not isinstance(owner, nn.Linear):
            raise ExportError(
                f"PEFT's BEFT adapters hold biases of linear layers and whole heads, and {name!r}, which was trained, "
                f"is neither (it belongs to a {type(owner).__name__}): use the format 'hf'."
            )
        before = torch.zeros_like(value) if owner.bias is None else owner.bias.detach().float()
        tensors[f"{path}.beft_bias"] = (value - before).unsqueeze(0)
        targets.append(path)
    if not targets:
        raise ExportError("PEFT's BEFT adapters need a bias, and only the head was trained: use the format 'hf'.")
    for head in heads:
        for name, value in model.get_submodule(head).state_dict(prefix=f"{head}.").items():
            tensors[name] = trained.get(name, value)
    config = {"target_modules": targets, "modules_to_save": heads or None}
    return config, {f"base_model.model.{name}": value.float().contiguous() for name, value in tensors.items()}


def _to_dtype(model: nn.Module, dtype: str, trained: Collection[str]) -> None:
    model.to(DTYPES[dtype])
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            whose = "trained " if name in trained else ""
            raise ExportError(f"the {whose}values of {name!r} are not all finite as {dtype}: choose another dtype.")


def _write_peft(
    record: Mapping[str, Any], model: PreTrainedModel, trained: Mapping[str, Tensor], dtype: str
) -> Callable[[Path], None]:
    modules, tensors = peft_adapter(model, trained)
    config = {
        "peft_type": "BEFT",
        "task_type": _CLASSES[record["auto_class"]],
        "base_model_name_or_path": resolve_backbone(record["backbone"]),
        "inference_mode": True,
        **modules,
    }

    def write(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    return write


def _write_hf(
    record: Mapping[str, Any], model: PreTrainedModel, trained: Mapping[str, Tensor], dtype: str
) -> Callable[[Path], None]:
    if quantizer := getattr(model, "hf_quantizer", None):
        if not all(parameter.is_floating_point() for parameter in model.parameters()):
            raise ExportError("the base is held in quantized blocks, which no bias can be merged into: use 'peft'.")
        # Weights from a GGUF file have been unpacked, and are stored as they are now.
        quantizer.remove_quantization_config(model)
    tokenizer = load_tokenizer(record["backbone"], record["gguf_file"])
    merge(model, trained)
    _to_dtype(model, dtype, trained.keys())

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return write


#: Format -> what checks that it can express what was trained, and gives the writer of a folder.
FORMATS: Mapping[str, Callable[..., Callable[[Path], None]]] = {"peft": _write_peft, "hf": _write_hf}
