"""Task records."""

from dataclasses import replace

import pytest

from beft_lightning.data import GLUE_TASKS, SUPER_GLUE_TASKS, Task
from beft_lightning.data.sources import Located
from beft_lightning.errors import DataError

PAIRS = Task(name="pairs", kind="classification", text=("a",), labels=("no", "yes"), metrics=("accuracy",))
SCORES = Task(name="scores", kind="regression", text=("a",), metrics=("pearson",))


def test_errors_name_the_place() -> None:
    with pytest.raises(DataError, match=r"file.tsv:3: label 'maybe' is outside the set of labels: no, yes"):
        PAIRS.label_id("maybe", "file.tsv:3")
    with pytest.raises(DataError, match=r"file.tsv:9: label 'high' is not a number"):
        SCORES.label_id("high", "file.tsv:9")


def test_rows_become_texts_labels_and_ids() -> None:
    rows: list[Located] = [("f:1", {"a": "one", "label": "yes", "b": "other"}), ("f:2", {"a": "two", "label": 0})]
    assert PAIRS.parse(rows, "f") == [{"a": "one", "label": 1, "id": 0}, {"a": "two", "label": 0, "id": 1}]
    with pytest.raises(DataError, match="f: the split is empty; pairs needs at least one example"):
        PAIRS.parse([], "f")


def test_rows_keep_an_id_of_their_own() -> None:
    assert [row["id"] for row in PAIRS.numbered([{"id": 5}, {}])] == [5, 1]


def test_an_unknown_kind_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="Task has no kind 'choice'; choose one of: classification, regression, mul"):
        replace(PAIRS, kind="choice")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "learning_rate", "epochs", "sizes"),
    [
        ("cola", 7e-4, 16, (1710, 3420, 4275)),
        ("mnli", 1e-4, 30, (1000, 5000, 9000)),
        ("mrpc", 7e-4, 60, (367, 1191, 1835)),
        ("qnli", 1e-4, 30, (1000, 5000, 9000)),
        ("qqp", 4e-4, 30, (1000, 5000, 9000)),
        ("rte", 1e-3, 30, (300, 900, 1200)),
        ("sst2", 4e-4, 16, (1000, 5000, 11000)),
        ("stsb", 1e-4, 60, (287, 1150, 2300)),
    ],
)
def test_glue_records_hold_the_published_protocol(
    name: str, learning_rate: float, epochs: int, sizes: tuple[int, int, int]
) -> None:
    task = GLUE_TASKS[name]
    assert (task.learning_rate, task.epochs) == (learning_rate, epochs)
    assert tuple(task.sizes.values()) == sizes


def test_super_glue_records_hold_the_published_protocol() -> None:
    assert {name: (task.learning_rate, task.epochs) for name, task in SUPER_GLUE_TASKS.items()} == {
        "cb": (1e-3, 60),
        "copa": (1e-3, 60),
        "wic": (1e-3, 16),
    }
