"""Prompted tasks as declarative records: how an example becomes a prompt with options, or with an answer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal, Self

from beft_lightning.data.generation import Generation
from beft_lightning.data.sources import Row, file_id
from beft_lightning.data.task import TaskRecord
from beft_lightning.data.task_checks import check_filled, check_texts
from beft_lightning.errors import DataError


@dataclass(frozen=True)
class Prompted:
    """An example as a language model sees it.

    Args:
        prompt: The text before the options, or before the answer to generate.
        options: The texts that may follow, with the white space that separates them; for generation, the answer to
            learn. None if the answer is not known, only to be predicted.
        labels: Indices of the right options.
        answers: For generation and extraction, the acceptable answers, each as its one or more spans.
        candidates: The bare texts of the options, where metrics compare texts.
        calibration_prompt: A prompt without the example's content, to calibrate the options' scores with.
        group: The unit that the example is a part of: a question that has several answers to judge.
        source: The text that the example was taken from, together with others: a paragraph that several questions are
            about. The training set and the dev set have none in common.
        id: Number to report the prediction under; by default the example's place in its split.
        file_id: The id that the example has in its file.
        where: File and row, for error messages.
    """

    prompt: str
    options: tuple[str, ...]
    labels: tuple[int, ...] = (0,)
    answers: tuple[tuple[str, ...], ...] = ()
    candidates: tuple[str, ...] = ()
    calibration_prompt: str | None = None
    group: str = ""
    source: str = ""
    id: int | None = None
    file_id: Any = None
    where: str = ""

    def with_demonstrations(self, solved: Sequence["Prompted"]) -> Self:
        """Return the example behind solved ones (in-context learning).

        Args:
            solved: The examples to show with their right options, in this order.
        """
        shown = [(example.prompt + example.options[example.labels[0]]).strip() for example in solved]
        context = "\n\n".join([*shown, ""])
        calibration = None if self.calibration_prompt is None else context + self.calibration_prompt
        return replace(self, prompt=context + self.prompt, calibration_prompt=calibration)


def separator(prompt: str) -> str:
    """Return the white space between a prompt and what follows: a space, or nothing if the prompt ends with some.

    It belongs to what follows. White space at the end of a prompt would belong to no token of the option or answer.

    Args:
        prompt: The prompt, or its template.
    """
    return "" if prompt[-1:].isspace() else " "


def one_row(row: Row) -> list[Row]:
    """Return an object of the original file as the one row that it is."""
    return [row]


@dataclass(frozen=True, kw_only=True)
class PromptTask(TaskRecord):
    """A task for causal language models.

    Args:
        kind: ``choice`` between options, or ``generation``.
        columns: The columns that an example needs.
        text: Those of them that hold text.
        target: The one of them that holds the label or the answer.
        examples: Makes the examples of a row; see :class:`~beft_lightning.data.verbalizer.Verbalizer`.
        labels: Names of the options, where all examples have the same ones.
        loss: ``classification`` over the options, or ``lm`` on the right one.
        learning_rate: Recommended learning rate when biases are trained (OPT).
        sizes: Number of training examples in each named data regime, or all if there are fewer. The published runs
            use 1,000.
        batch_size: Recommended number of examples that fit on one GPU together; the effective batch is 8.
        max_length: Most tokens of prompt and answer together.
        flatten: Turns an object of the original file into rows; by default it is one row.
        generation: How answers are generated.
        demonstrations: Number of solved training examples in front of each prompt that is evaluated.
        calibrate: Compare options by how much the prompt's content changes their score (SFC).
    """

    kinds = ("choice", "generation")
    adds_head = False

    kind: Literal["choice", "generation"]
    columns: tuple[str, ...]
    text: tuple[str, ...] = ()
    target: str = "label"
    examples: Callable[[Row], list[Prompted]]
    metrics: tuple[str, ...] = ("accuracy",)
    loss: Literal["classification", "lm"] = "classification"
    epochs: int = 5
    sizes: Mapping[str, int] = field(default_factory=lambda: {"low": 1000})
    batch_size: int = 8
    max_length: int = 2048
    flatten: Callable[[Row], Iterable[Row]] = one_row
    generation: Generation = field(default_factory=Generation)
    demonstrations: int = 0
    calibrate: bool = False

    @classmethod
    def from_dict(
        cls, record: Mapping[str, Any], labels: Sequence[str], examples: Callable[[Row], list[Prompted]]
    ) -> Self:
        """Return the task of a record of :meth:`to_dict`, without metrics.

        Args:
            record: The record.
            labels: Names of the options, where all examples have the same ones.
            examples: Makes the examples of a row, as the record says.
        """
        return cls(
            name=record["name"],
            kind=record["kind"],
            max_length=record["max_length"],
            columns=tuple(record["columns"]),
            text=tuple(record["text"]),
            target=record["target"],
            examples=examples,
            labels=tuple(labels),
            metrics=(),
            hub=tuple(record.get("hub", ("", None))),
            loss=record["loss"],
            generation=Generation(**record["generation"]),
            calibrate=record.get("calibrate", False),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the same as for any task, the columns, and how examples are made, with functions by their names."""
        return {
            **super().to_dict(),
            "columns": list(self.columns),
            "text": list(self.text),
            "target": self.target,
            "loss": self.loss,
            "examples": _plain(self.examples),
            "flatten": None if self.flatten is one_row else _plain(self.flatten),
            "generation": self.generation.to_dict(),
            "demonstrations": self.demonstrations,
            "calibrate": self.calibrate,
        }

    @property
    def input_columns(self) -> tuple[str, ...]:
        """All columns but the one with the label or answer."""
        return tuple(name for name in self.columns if name != self.target)

    def parse_row(self, row: Row, where: str) -> list[Prompted]:
        """Return the prompted examples of an object of the original file."""
        return [example for _, example in self._prompted(row, where, self.columns)]

    def parse_input(self, row: Row, where: str) -> list[tuple[Row, Prompted]]:
        """Return each prompted example behind its flat row."""
        found = self._prompted(row, where, self.input_columns)
        for flat, _ in found:
            check_filled(flat, self.input_columns, where)
        return found

    def _prompted(self, row: Row, where: str, columns: Sequence[str]) -> list[tuple[Row, Prompted]]:
        """Return the prompted examples that flat rows with certain columns make, each behind its flat row."""
        examples: list[tuple[Row, Prompted]] = []
        try:
            for flat in self.flatten(row):
                if missing := [name for name in columns if name not in flat]:
                    raise DataError(f"no {', '.join(map(repr, missing))}, which {self.name} needs")
                check_texts(flat, self.text)
                # A column that is not asked for does not decide anything.
                shown = flat if self.target in columns else {n: v for n, v in flat.items() if n != self.target}
                own = {"where": where, "file_id": file_id(flat)}
                examples.extend((flat, replace(example, **own)) for example in self.examples(shown))
        except DataError as error:
            raise DataError(f"{where}: {error}.") from error
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(
                f"{where}: not as {self.name} lays its data out ({type(error).__name__}: {error})."
            ) from error
        return examples

    def numbered(self, examples: Sequence[Prompted]) -> list[Prompted]:
        """Give each example that has no id its place in the split."""
        return [replace(e, id=place) if e.id is None else e for place, e in enumerate(examples)]

    def file_ids(self, examples: Sequence[Prompted]) -> list[Any]:
        """Return the id that each example has in its file; None where there is none."""
        return [example.file_id for example in examples]

    def sources(self, examples: Sequence[Prompted]) -> list[str]:
        """Return the source of each example; empty if none has one."""
        sources = [example.source for example in examples]
        return sources if any(sources) else []

    def regime_size(self, regime: str, available: int) -> int:
        """Return the number of training examples of a named data regime, or all if there are fewer."""
        return min(super().regime_size(regime, available), available)

    def with_baselines(self, demonstrations: int, calibrate: bool) -> Self:
        """Return the task with them, after a check that there are options where they are to be calibrated."""
        if calibrate and self.kind == "generation":
            raise DataError(f"{self.name} generates its answers, so there are no options to calibrate.")
        return replace(self, demonstrations=demonstrations, calibrate=calibrate)


def _plain(value: Any) -> Any:
    """Return a template in plain types: its fields with the name of its class, and anything else by its name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return list(value)
    if is_dataclass(value):
        return {"type": type(value).__name__, **{name: _plain(field) for name, field in vars(value).items()}}
    named = value if hasattr(value, "__qualname__") else type(value)
    return {"function": f"{named.__module__}.{named.__qualname__}"}
