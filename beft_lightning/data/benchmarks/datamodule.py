"""A DataModule for a benchmark: a table of tasks, read from original files or from the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from beft_lightning.data.datamodule import LanguageDataModule
from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.sources import hub_rows, local_rows
from beft_lightning.data.task import Task, TaskRecord
from beft_lightning.errors import DataError


class BenchmarkDataModule(LanguageDataModule):
    """A task of a benchmark; a subclass names its tasks and where its files lie.

    Args:
        tokenizer: Tokenizer to use: the backbone's hub id or folder.
        task: Name of the task; see the benchmark's list. A benchmark of one task needs none.
        prompt: Ask with a prompt, for causal language models, or show the bare texts, for encoders. By default as
            bare texts where the task has that form.
        data_dir: Folder with the original files: either it holds ``<benchmark>/<task>/`` with the task's ``train``
            and ``validation`` files, or those files themselves. By default the data comes from the hub.
        hub_id: Dataset on the hub, or a local folder that ``datasets`` can load, instead of the benchmark's own.
        revision: Branch, tag or commit of the dataset on the hub.
        kwargs: See :class:`~beft_lightning.data.datamodule.LanguageDataModule`.
    """

    #: The tasks that can be read as bare texts, by name.
    tasks: ClassVar[Mapping[str, Task]] = {}
    #: The tasks that can be asked with a prompt, by name.
    prompt_tasks: ClassVar[Mapping[str, PromptTask]] = {}
    #: Name of the benchmark's folder below ``data_dir``.
    folder: ClassVar[str]
    #: Suffix of the original files.
    suffix: ClassVar[str]
    #: Revision of the benchmark's own dataset on the hub that holds plain files.
    files_revision: ClassVar[str | None] = None

    def __init__(
        self,
        tokenizer: str,
        task: str | None = None,
        prompt: bool | None = None,
        data_dir: str | Path | None = None,
        hub_id: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task=self._find(task, prompt), tokenizer=tokenizer, **kwargs)
        self.data_dir = data_dir
        self.hub_id = hub_id
        self.revision = revision or (self.files_revision if hub_id is None else None)

    @classmethod
    def _find(cls, name: str | None, prompt: bool | None) -> TaskRecord:
        known: Mapping[str, TaskRecord] = {**cls.prompt_tasks, **cls.tasks}
        if prompt is not None:
            known = cls.prompt_tasks if prompt else cls.tasks
        if name is None and len(known) == 1:
            (name,) = known
        if name is None or name not in known:
            form = {None: "", True: " with a prompt", False: " as bare texts"}[prompt]
            choice = f"choose one of: {', '.join(sorted(known))}" if known else "it has none"
            raise DataError(f"{cls.__name__} has no task {name!r}{form}; {choice}.")
        return known[name]

    def read(self, split: str) -> list[Any]:
        """Read a split from ``data_dir``, or from the hub if there is none."""
        task = self.task
        if self.data_dir is None:
            source = f"{self.hub_id or task.hub[0]} ({split})"
            rows = hub_rows(task.hub, split, self.hub_id, self.revision)
        else:
            folder = self._task_folder(Path(self.data_dir))
            source = f"{folder} ({split})"
            rows = local_rows(folder, task.name, split, self.suffix, task.header)
        return task.parse(rows, source)

    def _task_folder(self, root: Path) -> Path:
        for nested in (root / self.folder / self.task.name, root / self.folder):
            if any(nested.glob(f"*{self.suffix}")):
                return nested
        if any(root.glob(f"*{self.suffix}")):
            return root
        raise DataError(
            f"{root}: no folder {self.folder}/{self.task.name} and no {self.suffix} file in this `data_dir`. Set it to "
            f"the folder that holds {self.folder}/, or to the one with the files of {self.task.name}."
        )
