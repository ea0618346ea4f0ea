"""The file in an export that says which task the model was trained on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from beft_lightning.checkpoint import TASK_ENTRIES
from beft_lightning.errors import CheckpointError
from beft_lightning.models import DTYPES, load_tokenizer

TASK_FILE = "beft_task.json"
#: Entries of the file, which are those of a checkpoint's record of the model -> their types.
_ENTRIES: Mapping[str, Any] = {"gguf_file": str | None, "dtype": str, "labels": list, "task": dict}
#: Longest input of a model that does not say which one it was trained with.
_MAX_LENGTH = 128


def write_record(folder: Path, record: Mapping[str, Any], dtype: str) -> None:
    """Write the part of a checkpoint's record of the model that says how inputs are encoded.

    Args:
        folder: Folder of the export.
        record: The checkpoint's record; those of the first version do not know the task, and leave no file.
        dtype: Precision of the weights that the export is used with.
    """
    if "task" in record:
        content = {name: record[name] for name in _ENTRIES} | {"dtype": dtype}
        (folder / TASK_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read what :func:`write_record` has written; None if there is no such file.

    Raises:
        CheckpointError: If the file is malformed.
    """
    path = folder / TASK_FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}). Export the checkpoint anew.") from error
    for name, kind in _ENTRIES.items():
        if not isinstance(record, dict) or name not in record or not isinstance(record[name], kind):
            raise CheckpointError(f"{path}: no valid {name!r}. Export the checkpoint anew.")
    for name, kind in TASK_ENTRIES.items():
        if not isinstance(record["task"].get(name), kind):
            raise CheckpointError(f"{path}: no valid {name!r} of the 'task'. Export the checkpoint anew.")
    return {name: record[name] for name in _ENTRIES}  # no others: the base and its class are not the file's to say


def infer_record(folder: Path) -> dict[str, Any]:
    """Return the record of a sequence classifier that says nothing but what transformers stores.

    Args:
        folder: A folder of transformers. Its input is taken to be a single text.

    Raises:
        CheckpointError: If the model is of another kind.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    names = [name for name in config.architectures or () if name.endswith("ForSequenceClassification")]
    if not names or config.problem_type == "multi_label_classification":
        raise CheckpointError(
            f"{folder}: no {TASK_FILE}, which says what the model was trained on, and no sequence classifier of one "
            "label, which tells it by itself: export the checkpoint anew, or give the checkpoint."
        )
    scored = config.problem_type == "regression" or config.num_labels == 1
    dtype = str(config.dtype).removeprefix("torch.")
    return {
        "gguf_file": None,
        "dtype": dtype if dtype in DTYPES else "float32",
        "labels": [] if scored else [config.id2label[index] for index in range(config.num_labels)],
        "task": {
            "name": folder.name,
            "kind": "regression" if scored else "classification",
            "max_length": min(load_tokenizer(str(folder)).model_max_length, _MAX_LENGTH),
            "text": ["text"],
        },
    }
