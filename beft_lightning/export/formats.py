"""Export of a checkpoint: the formats by name, and the folder they are written to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.errors import ExportError
from beft_lightning.export.card import CARD, fit_metrics, model_card, problem_type
from beft_lightning.export.clients import support, warn_of_losses
from beft_lightning.export.gguf import prepare_gguf
from beft_lightning.export.hub import base_licence, check_repository
from beft_lightning.export.hub import push as upload
from beft_lightning.export.loading import load_trained
from beft_lightning.export.peft import prepare_peft
from beft_lightning.export.task_file import write_record
from beft_lightning.export.transformers import prepare_transformers
from beft_lightning.files import check_new_file, check_new_folder, write_atomically, write_folder_atomically
from beft_lightning.models import check_dtype

#: Takes a checkpoint's record of the model, the base, the trained values, and the precision to store. Checks that the
#: format can express them, and returns what writes the files into a folder.
Prepare = Callable[[Mapping[str, Any], PreTrainedModel, Mapping[str, Tensor], str], Callable[[Path], None]]


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Args:
        prepare: Checks what was trained, and returns the writer of a folder; None if the format is a single file.
        fixed_dtype: Why the precision cannot be chosen; None if it can.
    """

    prepare: Prepare | None
    fixed_dtype: str | None = None


#: Name -> format.
FORMATS: Mapping[str, Format] = {
    "peft": Format(prepare_peft, "a PEFT adapter is always fp32: leave out the dtype, or use the format 'hf'."),
    "hf": Format(prepare_transformers),
    "gguf": Format(None, "gguf keeps the precision of the base's file: leave out the dtype, or give another file."),
}


def export(
    checkpoint: str | Path,
    out: str | Path,
    form: str,
    *,
    dtype: str | None = None,
    backbone: str | None = None,
    base_gguf: str | Path | None = None,
    push: str | None = None,
) -> Path:
    """Write what a fit has trained in a format that other programs read.

    Args:
        checkpoint: A checkpoint of a fit of :class:`~beft_lightning.LanguageTaskModule`.
        out: Folder to make, or with ``gguf`` the file. It appears when everything is written.
        form: ``peft``: an adapter beside the unchanged base, loaded by ``PeftModel.from_pretrained``. ``hf``: the
            whole model with the trained values in it, loaded by ``from_pretrained``. ``gguf``: the base's GGUF file
            with the trained biases in it, loaded by llama.cpp.
        dtype: With ``hf``, the precision to store, a key of :data:`~beft_lightning.models.DTYPES`; by default the one
            that the base had in the fit. The biases are merged in fp32 before.
        backbone: Location of the base now, if it is not where the fit found it.
        base_gguf: With ``gguf``, the base as a GGUF file, if the fit's base was none.
        push: Repository of the hub of Hugging Face, ``USER/NAME``, to upload the export to.

    Returns:
        The folder, or the file.

    Raises:
        ExportError: If the format is unknown or cannot express what was trained, or ``out`` is taken.
        CheckpointError: If the checkpoint is missing, damaged, not of such a fit, or the base is another one.
        BackboneError: If the base cannot be loaded.
    """
    if form not in FORMATS:
        raise ExportError(f"format {form!r} is unknown; choose one of: {', '.join(FORMATS)}.")
    chosen = FORMATS[form]
    if dtype is not None:
        check_dtype(dtype)
        if chosen.fixed_dtype:
            raise ExportError(chosen.fixed_dtype)
    if base_gguf is not None and form != "gguf":
        raise ExportError(f"base_gguf is for the format 'gguf', and this one is {form!r}: leave it out.")
    if push is not None:
        check_repository(push)
    if chosen.prepare is None:
        check_new_file(out, ".gguf")
        write_atomically(out, prepare_gguf(checkpoint, backbone, base_gguf), new=True)
    else:
        check_new_folder(out)
        write_folder_atomically(out, _prepare_folder(checkpoint, form, chosen.prepare, dtype, backbone))
    rank_zero_info(f"Wrote the trained model to {out}")
    if push is not None:
        upload(Path(out), push)
    return Path(out)


def _prepare_folder(
    checkpoint: str | Path, form: str, prepare: Prepare, dtype: str | None, backbone: str | None
) -> Callable[[Path], None]:
    """Return what writes an export's folder: the model, the file of the task, and the card."""
    record, model, trained = load_trained(checkpoint, backbone)
    stored = dtype or record["dtype"]
    if problem := problem_type(record):
        model.config.update({"problem_type": problem})  # a pipeline of transformers would guess
    base = frozenset(name for name, _ in model.named_parameters())
    write_model = prepare(record, model, trained, stored)
    clients = None
    if form == "hf":
        whole = frozenset(name for name, _ in model.named_parameters())
        clients = support(model.config.model_type, whole & trained.keys() - base)
        warn_of_losses(clients)
    card = model_card(
        record,
        form,
        trained=sum(value.numel() for value in trained.values()),
        metrics=fit_metrics(checkpoint),
        licence=base_licence(record["backbone"]),
        clients=clients,
    )

    def write(folder: Path) -> None:
        write_model(folder)
        write_record(folder, record, stored)
        (folder / CARD).write_text(card, encoding="utf-8")

    return write
