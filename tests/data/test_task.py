"""Task records."""

import pytest

from beft_lightning.data import GLUE_TASKS, SUPER_GLUE_TASKS, Task
from beft_lightning.errors import DataError

PAIRS = Task(name="pairs", kind="classification", text=("a",), labels=("no", "yes"), metrics=("accuracy",))
SCORES = Task(name="scores", kind="regression", text=("a",), metrics=("pearson",))


@pytest.mark.parametrize("value", ["yes", "1", 1, True])
def test_labels_are_read_by_name_id_or_truth(value: object) -> None:
    assert PAIRS.label_id(value, "here") == 1


@pytest.mark.parametrize("value", ["maybe", "2", -1, "", "1.0", None])
def test_a_label_outside_the_set_is_an_error_with_its_place(value: object) -> None:
    with pytest.raises(DataError, match=r"file.tsv:3: label .* outside the set of pairs: no, yes \(or 0 to 1\)"):
        PAIRS.label_id(value, "file.tsv:3")


@pytest.mark.parametrize("value", ["5", "5.0", "5.000", 5.0])
def test_scores_are_read_in_any_precision(value: object) -> None:
    assert SCORES.label_id(value, "here") == 5.0
    assert SCORES.outputs == 1


@pytest.mark.parametrize("value", ["high", "nan", "inf"])
def test_a_score_that_is_no_number_is_an_error_with_its_place(value: str) -> None:
    with pytest.raises(DataError, match=f"file.tsv:9: '{value}' is not a number"):
        SCORES.label_id(value, "file.tsv:9")


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
