"""Task records."""

from dataclasses import replace
from typing import Any

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
    ("options", "message"),
    [
        ({"labels": ("no",)}, "classification has 2 or more labels, and not 1"),
        ({"labels": ("no", "yes", "no")}, "the label 'no' occurs twice"),
        ({"options": "choices"}, "`options` are for multiple choice without labels"),
    ],
)
def test_labels_and_texts_that_the_kind_does_not_have(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(PAIRS, **options)


MULTI = replace(PAIRS, kind="multi_label", metrics=("micro_f1",))
TAGS = replace(PAIRS, kind="token_classification", metrics=("token_accuracy",))
CHOICE = replace(PAIRS, kind="multiple_choice", labels=(), options="choices")


@pytest.mark.parametrize(
    ("task", "row", "label"),
    [
        (MULTI, {"a": "one", "label": ["yes", "no"]}, [1, 1]),
        (MULTI, {"a": "one", "label": []}, [0, 0]),
        (TAGS, {"a": ["one", "two"], "label": ["yes", 0]}, [1, 0]),
        (CHOICE, {"a": "one", "choices": ["1", "0", "7"], "label": 1}, 1),
    ],
)
def test_labels_of_other_kinds(task: Task, row: dict[str, Any], label: Any) -> None:
    (example,) = task.parse([("f:1", row)], "f")
    assert example == {**row, "label": label, "id": 0}


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (MULTI, {"a": "one", "label": "yes"}, "f:1: label 'yes' is no list of labels"),
        (MULTI, {"a": "one", "label": ["yes", 1]}, r"f:1: a label occurs twice in \['yes', 1\]"),
        (MULTI, {"a": "one", "label": ["maybe"]}, "f:1: label 'maybe' is outside the set"),
        (TAGS, {"a": ["one", "two"], "label": ["yes"]}, "f:1: 2 words and 1 tags"),
        (TAGS, {"a": "one two", "label": ["yes", "no"]}, "f:1: column 'a' is no list of texts but 'one two'"),
        (TAGS, {"a": ["one", " "], "label": ["yes", "no"]}, "f:1: column 'a' lists ' ', which is no text or an empty"),
        (CHOICE, {"a": "one", "choices": ["x", "y"], "label": 2}, r"f:1: label '2' is outside .*\(or 0 to 1\)"),
    ],
)
def test_rows_that_are_not_as_the_kind_needs_them(task: Task, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task.parse([("f:1", row)], "f")


@pytest.mark.parametrize("task", [CHOICE, replace(CHOICE, options="", labels=("x", "y"))])
def test_choices_to_predict_are_checked_as_those_to_learn(task: Task) -> None:
    def row(one: str, two: str) -> dict[str, Any]:
        return {"a": "one", "choices": [one, two], "x": one, "y": two, "label": 0}

    ((_, example),) = task.parse_input(row(" p ", "q"), "f:1")
    (learnt,) = task.parse_row(row(" p ", "q"), "f:1")
    expected = {"choices": ["p", "q"]} if task.options else {"x": "p", "y": "q"}
    assert example == {"a": "one", **expected} == {name: learnt[name] for name in example}
    for read in (task.parse_row, task.parse_input):
        with pytest.raises(DataError, match="f:1: the option 'p' occurs twice"):
            read(row("p", "p "), "f:1")


@pytest.mark.parametrize("task", [PAIRS, SCORES, MULTI, TAGS, CHOICE])
def test_a_record_can_be_restored(task: Task) -> None:
    assert Task.from_dict(task.to_dict(), task.labels) == replace(task, metrics=())


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
