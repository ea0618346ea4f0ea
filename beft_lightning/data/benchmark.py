"""A DataModule for a benchmark: a table of tasks, read from original files or from the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from beft_lightning.data.datamodule import LanguageDataModule
from beft_lightning.data.sources import Row, read_hub, read_local
from beft_lightning.data.task import Task
from beft_lightning.errors import DataError


class BenchmarkDataModule(LanguageDataModule):
    """A task of a benchmark; a subclass names its tasks and where its files lie.

    Args:
        tokenizer: Tokenizer to use: the backbone's hub id or folder.
        task: Name of the task; see the benchmark's list.
        data_dir: Folder with the original files: either it holds ``<benchmark>/<task>/`` with the task's ``train``
            and ``validation`` files, or those files themselves. By default the data comes from the hub.
        hub_id: Dataset on the hub, or a local folder that ``datasets`` can load, instead of the benchmark's own.
        revision: Branch, tag or commit of the dataset on the hub.
        kwargs: See :class:`~beft_lightning.data.datamodule.LanguageDataModule`.
    """

    #: The benchmark's tasks by name.
    tasks: ClassVar[Mapping[str, Task]]
    #: Name of the benchmark's folder below ``data_dir``.
    folder: ClassVar[str]
    #: Suffix of the original files.
    suffix: ClassVar[str]
    #: Revision of the benchmark's own dataset on the hub that holds plain files.
    files_revision: ClassVar[str | None] = None

    def __init__(
        self,
        tokenizer: str,
        task: str,
        data_dir: str | Path | None = None,
        hub_id: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        if task not in self.tasks:
            raise DataError(f"{type(self).__name__} has no task {task!r}; choose one of: {', '.join(self.tasks)}.")
        super().__init__(task=self.tasks[task], tokenizer=tokenizer, **kwargs)
        self.data_dir = data_dir
        self.hub_id = hub_id
        self.revision = revision or (self.files_revision if hub_id is None else None)

    def read(self, split: str) -> list[Row]:
        """Read a split from ``data_dir``, or from the hub if there is none."""
        if self.data_dir is None:
            return read_hub(self.task, split, self.hub_id, self.revision)
        return read_local(self._task_folder(Path(self.data_dir)), self.task, split, self.suffix)

    def _task_folder(self, root: Path) -> Path:
        nested = root / self.folder / self.task.name
        if nested.is_dir():
            return nested
        if any(root.glob(f"*{self.suffix}")):
            return root
        raise DataError(
            f"{root}: no folder {self.folder}/{self.task.name} and no {self.suffix} file in this `data_dir`. Set it to "
            f"the folder that holds {self.folder}/, or to the one with the files of {self.task.name}."
        )
