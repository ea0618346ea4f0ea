"""A prompted task as a declarative record: how an example becomes a prompt with options, or with an answer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from beft_lightning.data.task import Evaluated

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Prompted:
    """An example as a language model sees it.

    Args:
        prompt: The text before the options, or before the answer to generate.
        options: What may follow, with the white space that separates it; for generation, the answer to learn.
        gold: Indices of the right options.
        answers: For generation and extraction, the acceptable answers, each as its one or more spans.
        candidates: The bare texts of the options, where metrics compare texts.
        calibration_prompt: A prompt without the example's content, to calibrate the options' scores with.
        group: What the example is a part of: a question that has several answers to judge.
        source: What the example was taken from, together with others: a paragraph that several questions are about.
            The training set and the dev set have none in common.
    """

    prompt: str
    options: tuple[str, ...]
    gold: tuple[int, ...] = (0,)
    answers: tuple[tuple[str, ...], ...] = ()
    candidates: tuple[str, ...] = ()
    calibration_prompt: str | None = None
    group: str = ""
    source: str = ""


@dataclass(frozen=True)
class PromptTask(Evaluated):
    """A task for causal language models, told in data.

    Args:
        name: Short name, as in ``--data.task``.
        kind: ``choice`` between options, or ``generation``.
        columns: The columns that an example needs.
        examples: Makes the examples of a row.
        metrics: Names of the metrics to report, the main one first.
        labels: Names of the options, where all examples have the same ones.
        loss: ``classification`` over the options, or ``lm`` on the right one.
        learning_rate: Recommended learning rate when biases are trained (OPT).
        epochs: Recommended number of epochs.
        batch_size: Recommended number of examples that fit on one GPU together; the effective batch is 8.
        max_length: Most tokens of prompt and answer together.
        flatten: Turns an object of the original file into rows; by default it is one row.
        hub: Dataset id and configuration on the hub.
    """

    name: str
    kind: Literal["choice", "generation"]
    columns: tuple[str, ...]
    examples: Callable[[Row], list[Prompted]]
    metrics: tuple[str, ...] = ("accuracy",)
    labels: tuple[str, ...] = ()
    loss: Literal["classification", "lm"] = "classification"
    learning_rate: float = 1e-3
    epochs: int = 5
    batch_size: int = 8
    max_length: int = 2048
    flatten: Callable[[Row], Iterator[Row]] = lambda row: iter([row])
    hub: tuple[str, str | None] = ("", None)

    @property
    def sizes(self) -> Mapping[str, int]:
        """The published runs use 1,000 examples, or all if there are fewer."""
        return {"low": 1000}
