"""Tasks as declarative records: what a task says of itself, and nothing that has to be computed with tensors."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from beft_lightning.data.labels import LABEL_READERS
from beft_lightning.data.metrics import check_metrics
from beft_lightning.data.sources import Located, Row, file_id
from beft_lightning.data.task_checks import COUNTS, check_counts, check_filled, check_texts, options_of
from beft_lightning.errors import DataError

#: Name of the training split.
TRAIN = "train"
#: Name of the split of examples set aside from the training split.
DEV = "dev"


@dataclass(frozen=True, kw_only=True)
class TaskRecord(ABC):
    """Base of all task records: :class:`Task` for bare texts, :class:`~.prompt_task.PromptTask` for prompts.

    The kind is the key to everything else: its preprocessor in :mod:`beft_lightning.data.preprocessors`, its objective
    in :mod:`beft_lightning.tasks.objectives`, and the metrics that suit it in :mod:`beft_lightning.data.metrics`.

    Args:
        name: Short name, as in ``--data.task``.
        kind: Kind of task, one of the class's ``kinds``.
        metrics: Names of the metrics to report, the main one first.
        labels: Label names in the order of their ids; empty where examples have none in common.
        learning_rate: Recommended learning rate when biases are trained.
        epochs: Recommended number of epochs.
        sizes: Number of training examples in each named data regime.
        max_length: Longest input, in tokens.
        hub: Dataset id and configuration on the hub.
        header: Column names of the original file, if it has no header line of its own.
        evaluation_splits: Splits to report results on.
        dev: Evaluate during training on examples set aside from the training split, not on the reported splits.

    Raises:
        DataError: If the kind is unknown, a metric does not suit it, or a label name occurs twice.
    """

    #: The kinds of task that this class describes.
    kinds: ClassVar[tuple[str, ...]]
    #: Whether the model answers with a new head. It starts from random weights, so there is no zero-shot result.
    adds_head: ClassVar[bool]
    bare_input: ClassVar[type] = str  #: Type of an input that may stand alone, instead of a row of one column.

    name: str
    kind: str
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    learning_rate: float = 1e-3
    epochs: int = 30
    sizes: Mapping[str, int] = field(default_factory=dict)
    max_length: int = 128
    hub: tuple[str, str | None] = ("", None)
    header: tuple[str, ...] = ()
    evaluation_splits: tuple[str, ...] = ("validation",)
    dev: bool = False

    def __post_init__(self) -> None:
        if self.kind not in self.kinds:
            raise DataError(
                f"task {self.name!r}: {type(self).__name__} has no kind {self.kind!r}; choose one of: "
                f"{', '.join(self.kinds)}."
            )
        if twice := [name for name in self.labels if self.labels.count(name) > 1]:
            raise DataError(f"task {self.name!r}: the label {twice[0]!r} occurs twice among {', '.join(self.labels)}.")
        check_metrics(self.name, self.kind, len(self.labels), self.metrics)

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """Splits to evaluate on during training."""
        return (DEV,) if self.dev else self.evaluation_splits

    def to_dict(self) -> dict[str, Any]:
        """Return what a new input needs to be encoded like those of the fit, in plain types."""
        record = {"name": self.name, "kind": self.kind, "max_length": self.max_length, "labels": list(self.labels)}
        return record | ({"hub": list(self.hub)} if self.hub[0] else {})

    @property
    @abstractmethod
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a new input needs."""

    def parse(self, rows: Iterable[Located], source: str) -> list[Any]:
        """Check raw rows, and make the examples that the kind's preprocessor encodes.

        Args:
            rows: Rows of a file or of the hub, each with its place for error messages.
            source: Name of the file or dataset, for error messages.

        Returns:
            The examples in the order of the rows, each with an id.

        Raises:
            DataError: If there is no row, a column is missing, or a value is not as the task needs it.
        """
        examples = [example for where, row in rows for example in self.parse_row(row, where)]
        if not examples:
            raise DataError(f"{source}: the split is empty; {self.name} needs at least one example.")
        return self.numbered(examples)

    @abstractmethod
    def parse_row(self, row: Row, where: str) -> list[Any]:
        """Make the examples of one raw row; arguments and errors as for :meth:`parse`."""

    @abstractmethod
    def parse_input(self, row: Row, where: str) -> list[tuple[Row, Any]]:
        """Make the examples of a row that is to be predicted; its label or answer, if there is one, is not looked at.

        Args:
            row: A row, or an object of an original file that holds several.
            where: The place of the row, for error messages.

        Returns:
            Each example behind the row it is made of.

        Raises:
            DataError: If a column is missing or empty, or a value is not as the task needs it.
        """

    def file_ids(self, examples: Sequence[Any]) -> list[Any]:
        """Return the id that each example has in its file; None where there is none."""
        return [None] * len(examples)

    @abstractmethod
    def numbered(self, examples: Sequence[Any]) -> list[Any]:
        """Give each example that has no id its place in the split."""

    def sources(self, examples: Sequence[Any]) -> list[str]:
        """Return the source of each example that has to stay with the others of its source; empty if none has to."""
        return []

    def regime_size(self, regime: str, available: int) -> int:
        """Return the number of training examples of a named data regime.

        Args:
            regime: Name of the regime.
            available: Number of examples there are.

        Raises:
            DataError: If the task has no such regime.
        """
        if regime not in self.sizes:
            raise DataError(
                f"train_size {regime!r} is not defined for {self.name}; use {', '.join([*self.sizes, 'all'])}, or a "
                "number."
            )
        return self.sizes[regime]

    @abstractmethod
    def with_baselines(self, demonstrations: int, calibrate: bool) -> Self:
        """Return the task as it is evaluated with baselines that train nothing.

        Args:
            demonstrations: Number of solved examples in front of each prompt.
            calibrate: Compare options by how much the prompt's content changes their score.

        Raises:
            DataError: If one is asked for that the task has no use for.
        """


@dataclass(frozen=True, kw_only=True)
class Task(TaskRecord):
    """A task of bare texts, for encoders.

    Args:
        kind: ``classification``, ``regression``, ``multi_label`` (any number of labels for each text),
            ``token_classification`` (a tag for each word of a list) or ``multiple_choice``.
        text: The one or two columns that hold the text; for multiple choice, the columns of the context.
        labels: Label names in the order of their ids; empty for regression; for multiple choice, the columns of the
            choices.
        options: For multiple choice, instead of labels, the column that lists the choices of each row.
        columns: Column in the original file -> the column meant here, where the names differ.
        mean_score: For regression, the prediction that a new head starts from. The published runs start from 0.

    Raises:
        DataError: If the kind does not go with the number of labels or of text columns.
    """

    kinds = tuple(COUNTS)
    adds_head = True

    kind: Literal["classification", "regression", "multi_label", "token_classification", "multiple_choice"]
    text: tuple[str, ...]
    options: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    mean_score: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.options and (self.kind != "multiple_choice" or self.labels):
            raise DataError(f"task {self.name!r}: `options` are for multiple choice without labels.")
        check_counts(self.name, self.kind, None if self.options else len(self.labels), len(self.text))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], labels: Sequence[str]) -> Self:
        """Return the task of a record of :meth:`to_dict`, without metrics.

        Args:
            record: The record.
            labels: Label names in the order of their ids, for a record that does not hold them.
        """
        lists = {name: tuple(record[name]) for name in ("text", "hub") if name in record}
        return cls(**{**record, **lists, "labels": tuple(record.get("labels", labels))}, metrics=())

    def to_dict(self) -> dict[str, Any]:
        """Return the same as for any task, the columns, and where they have other names in the task's files."""
        columns = {"columns": dict(self.columns)} if self.columns else {}
        options = {"options": self.options} if self.options else {}
        return {**super().to_dict(), "text": list(self.text), **columns, **options}

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that hold text."""
        choices = (self.options,) if self.options else self.labels
        return (*self.text, *choices) if self.kind == "multiple_choice" else self.text

    @property
    def columns_of_lists(self) -> tuple[str, ...]:
        """Those of them that hold lists of texts."""
        if self.kind == "token_classification":
            return self.text
        return (self.options,) if self.options else ()

    def parse_row(self, row: Row, where: str) -> list[Row]:
        """Return the text columns and ``label``, a number or a list of numbers."""
        renamed = self._renamed(row, where, (*self.input_columns, "label"))
        texts = self._texts(renamed, where)
        names = self.labels if not self.options else tuple(map(str, range(len(texts[self.options]))))
        label = self.label_id(renamed["label"], where, names)
        if self.kind == "token_classification" and len(label) != len(texts[self.text[0]]):
            raise DataError(f"{where}: {len(texts[self.text[0]])} words and {len(label)} tags: each word has one tag.")
        return [{**texts, "label": label}]

    def parse_input(self, row: Row, where: str) -> list[tuple[Row, Row]]:
        """Return the row, and its text columns as the example."""
        renamed = self._renamed(row, where, self.input_columns)
        check_filled(renamed, self.input_columns, where)
        return [(row, self._texts(renamed, where))]

    def _renamed(self, row: Row, where: str, needed: Iterable[str]) -> Row:
        """Return a row with the names that columns have here, after a check that those needed are there."""
        renamed = {self.columns.get(name, name): value for name, value in row.items()}
        if missing := [name for name in needed if name not in renamed]:
            original = {meant: name for name, meant in self.columns.items()}
            raise DataError(
                f"{where}: no column {', '.join(repr(original.get(name, name)) for name in missing)}, which "
                f"{self.name} needs; there are: {', '.join(map(str, row))}."
            )
        return renamed

    def _texts(self, row: Row, where: str) -> dict[str, Any]:
        """Return the columns that hold text, choices less white space, and the id in the file if there is one."""
        texts = {name: row[name] for name in self.input_columns}
        try:
            check_texts(row, self.input_columns, self.columns_of_lists)
            if self.kind == "multiple_choice":
                choices = options_of(row, self.labels or (self.options,))
                texts |= {self.options: choices} if self.options else zip(self.labels, choices, strict=True)
        except DataError as error:
            raise DataError(f"{where}: {error}.") from error
        own = file_id(row)
        return texts if own is None else {**texts, "file_id": own}

    def numbered(self, examples: Sequence[Row]) -> list[Row]:
        """Give each row that has no ``id`` its place in the split."""
        return [{**row, "id": row.get("id", place)} for place, row in enumerate(examples)]

    def file_ids(self, examples: Sequence[Row]) -> list[Any]:
        """Return the id that each row has in its file; None where there is none."""
        return [row.get("file_id") for row in examples]

    def label_id(self, value: object, where: str, names: Sequence[str] | None = None) -> Any:
        """Return a raw label as the number, or the list of numbers, to train on.

        Args:
            value: Label name, id, truth value or score, as text or not, as the original file or the hub has it; for
                several labels or tags a list.
            where: File and line, for the error.
            names: Label names in the order of their ids; by default the task's.

        Raises:
            DataError: If the label is outside the set.
        """
        try:
            return LABEL_READERS[self.kind](value, self.labels if names is None else names)
        except DataError as error:
            raise DataError(f"{where}: {error}.") from error

    def with_baselines(self, demonstrations: int, calibrate: bool) -> Self:
        """Return the task, after a check that there are none: they belong to prompts."""
        if demonstrations or calibrate:
            raise DataError(f"demonstrations and calibrate belong to prompts, and {self.name} is read without one.")
        return self
