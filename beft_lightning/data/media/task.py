"""Tasks that give an image or a sound one label of a fixed set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from beft_lightning.data.column_task import ColumnExample, ColumnTask
from beft_lightning.data.labels import label_index
from beft_lightning.data.sources import Row
from beft_lightning.data.task_checks import check_filled


@dataclass(frozen=True, kw_only=True)
class MediaExample(ColumnExample):
    """An image or a sound, which is read when its batch is made.

    Args:
        media: Path, bytes, array, or whatever else :func:`~.images.read_image` or :func:`~.sounds.read_sound` reads.
        label: Its label's id, where it has one.
    """

    media: Any
    label: int | None = None


@dataclass(frozen=True, kw_only=True)
class MediaTask(ColumnTask):
    """One label for each image or sound.

    Args:
        folder: Folder that relative paths start from; by default the working directory.
    """

    adds_head = True
    bare_input = object

    #: What it classifies: the name of the option of its column, and the key of the suffixes of its files.
    media: ClassVar[str]

    epochs: int = 30
    folder: str = ""

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], labels: Sequence[str]) -> Self:
        """Return the task of a record of :meth:`to_dict`, without metrics; arguments as of a task of bare texts."""
        lists = {"hub": tuple(record["hub"])} if "hub" in record else {}
        return cls(**{**record, **lists, "labels": tuple(record.get("labels", labels))}, metrics=())

    def parse_row(self, row: Row, where: str) -> list[MediaExample]:
        """Return the example of a row, with its label."""
        (example,) = super().parse_row(row, where)
        return [replace(example, label=label_index(row["label"], self.labels))]

    def to_learn(self, value: Any, where: str) -> MediaExample:
        """Return the example of a cell, still without a label."""
        if not isinstance(value, np.ndarray):
            check_filled({self.column: value}, (self.column,), where)
        return MediaExample(media=located(value, self.folder))

    to_predict = to_learn


@dataclass(frozen=True, kw_only=True)
class ImageTask(MediaTask):
    """One label for each image."""

    kinds = ("image_classification",)
    media = "image"

    kind: str = "image_classification"


@dataclass(frozen=True, kw_only=True)
class AudioTask(MediaTask):
    """One label for each sound.

    Args:
        max_seconds: Longer sounds are cut behind so many seconds.
    """

    kinds = ("audio_classification",)
    media = "audio"

    kind: str = "audio_classification"
    max_seconds: float = 30.0

    def to_dict(self) -> dict[str, Any]:
        """Return the same as for any task, and the longest sound."""
        return {**super().to_dict(), "max_seconds": self.max_seconds}


def located(value: Any, folder: str | Path) -> Any:
    """Return a cell with its relative path, if it holds one, behind a folder."""
    if isinstance(value, str | Path):
        return str(Path(folder) / value)
    if isinstance(value, Mapping) and value.get("path") and not value.get("bytes"):
        return {**value, "path": str(Path(folder) / value["path"])}
    return value
