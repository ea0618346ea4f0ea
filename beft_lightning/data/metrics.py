"""The names of metrics, and the tasks that each suits; the metrics themselves are in :mod:`beft_lightning.tasks`."""

import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from beft_lightning.errors import DataError

#: The kinds of task whose predictions are label ids.
_LABELLED = ("classification", "multiple_choice", "choice", "image_classification", "audio_classification")
_TEXTS = ("choice", "generation", "chat")
_TAGS = ("token_classification",)
_ANY = range(sys.maxsize)
_SEVERAL = range(2, sys.maxsize)
#: Two, or none: options that have no names, as MultiRC's.
_BINARY = (0, 2)


@dataclass(frozen=True)
class Suitability:
    """The tasks that a metric suits.

    Args:
        kinds: The kinds of task.
        label_counts: The numbers of label names.
    """

    kinds: tuple[str, ...]
    label_counts: Container[int] = _ANY


#: Name of a metric -> the tasks that it suits.
SUITABLE: Mapping[str, Suitability] = {
    "accuracy": Suitability(_LABELLED),
    "f1": Suitability(_LABELLED, _BINARY),
    "micro_f1": Suitability(("multi_label",), _SEVERAL),
    "macro_f1": Suitability((*_LABELLED, "multi_label"), _SEVERAL),
    "exact_match": Suitability(("multi_label",), _SEVERAL),
    "mcc": Suitability(_LABELLED, _SEVERAL),
    "entity_f1": Suitability(_TAGS),
    "entity_precision": Suitability(_TAGS),
    "entity_recall": Suitability(_TAGS),
    "token_accuracy": Suitability(_TAGS),
    "spearman": Suitability(("regression",)),
    "pearson": Suitability(("regression",)),
    # MultiRC's name for F1 over all answers.
    "f1a": Suitability(("choice",), _BINARY),
    "em": Suitability(("choice",)),
    "answer_f1": Suitability(_TEXTS),
    "answer_em": Suitability(_TEXTS),
    "drop_f1": Suitability(_TEXTS),
    "drop_em": Suitability(_TEXTS),
    **{name: Suitability(_TEXTS) for name in ("rouge1", "rouge2", "rougeL")},
    "perplexity": Suitability(("text",)),
}


def suitable_metrics(kind: str, labels: int) -> list[str]:
    """Return the names of the metrics that suit a kind of task with a number of label names."""
    return [name for name, suits in SUITABLE.items() if kind in suits.kinds and labels in suits.label_counts]


def check_metrics(task: str, kind: str, labels: int, metrics: Sequence[str]) -> None:
    """Check that metrics exist and suit a task.

    Args:
        task: Name of the task, for the error.
        kind: Its kind.
        labels: Its number of label names.
        metrics: Names of the metrics.

    Raises:
        DataError: If one does not.
    """
    valid = suitable_metrics(kind, labels)
    if unknown := [name for name in metrics if name not in valid]:
        raise DataError(
            f"task {task!r}: no metric {unknown[0]!r} for {kind} with {labels} label names; choose from: "
            f"{', '.join(valid)}."
        )
