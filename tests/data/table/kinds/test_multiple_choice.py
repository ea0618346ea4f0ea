"""Tables with options of their own for each row."""

from typing import Any

import pytest
from datasets import Dataset

from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.multiple_choice import MultipleChoice
from beft_lightning.data.task import Task
from beft_lightning.errors import DataError

ROWS = {"text": ["one", "two"], "a": ["x", "7"], "b": ["y", "0"], "all": [["x", "y", "z"], ["7", "0"]]}


def labels(label: list[Any], options: str, change: dict[str, Any] | None = None, prompt: str | None = None) -> Any:
    table = Dataset.from_dict({**ROWS, "label": label, **(change or {})})
    kind = MultipleChoice(Columns.given("text", "label", options, prompt), "t.json")
    task = kind.make_task(table)
    return task, task.parse(kind.rows(table, "t.json", task), "t.json")


@pytest.mark.parametrize("options", ["a,b", "all"])
@pytest.mark.parametrize("label", [[1, 0], ["1", "7"], ["y", "7"], [1.0, 0.0], ["B", "A"], ["B", " 7 "]])
def test_a_label_is_the_number_letter_or_text_of_an_option(label: list[Any], options: str) -> None:
    task, examples = labels(label, options)
    assert isinstance(task, Task)
    assert (task.kind, task.labels, task.options) == (
        ("multiple_choice", ("a", "b"), "") if options == "a,b" else ("multiple_choice", (), "all")
    )
    assert [row["label"] for row in examples] == [1, 0]


def test_a_label_is_the_column_of_an_option() -> None:
    assert [row["label"] for row in labels(["b", "a"], "a,b")[1]] == [1, 0]


def test_columns_with_the_names_of_numbers_do_not_change_the_right_option() -> None:
    """The first option stands in column "1", and column "0" is the third one."""
    numbered = {"0": ["p", "q"], "1": ["x", "7"], "2": ["y", "z"]}
    assert [row["label"] for row in labels(["x", "q"], "1,2,0", numbered)[1]] == [0, 2]


def test_a_cell_of_a_prompt_is_a_text() -> None:
    with pytest.raises(DataError, match="t.json row 1: column 'year' is no text but 1990"):
        labels([1, 0], "a,b", {"year": [1990, 1991]}, prompt="{text} of {year}:")


@pytest.mark.parametrize(("options", "count"), [("a,b", 2), ("all", 3)])
def test_a_prompt_makes_it_a_choice_of_a_language_model(options: str, count: int) -> None:
    task, (first, second) = labels([1, 0], options, prompt="{text}:")
    assert isinstance(task, PromptTask)
    assert (task.kind, task.labels) == ("choice", ())
    assert (first.prompt, first.options[:2], len(first.options)) == ("one:", (" x", " y"), count)
    assert (first.labels, second.labels, second.candidates) == ((1,), (0,), ("7", "0"))


@pytest.mark.parametrize(
    ("label", "options", "change", "message"),
    [
        ([1, 2], "a,b", {}, "t.json row 2: label 2 is not one of the options. Give its number from 0 to 1, its letter"),
        (["1", "0"], "a,b", {}, "t.json row 2: label '0' may be option 0 or 1"),  # its number, and the second text
        (["A", "B"], "a,b", {"b": ["A", "B"]}, "t.json row 1: label 'A' may be option 0 or 1"),
        (["C", "A"], "a,b", {}, "t.json row 1: label 'C' is not one of"),
        (["01", "0"], "a,b", {}, "t.json row 1: label '01' is not one of"),
        (["x", "x"], "a,b", {}, "t.json row 2: label 'x' is not one of the options"),
        (
            ["a", "b"],
            "a,b",
            {"b": ["a", "y"]},
            "t.json row 1: label 'a' may be option 0 or 1",
        ),
        ([0, None], "a,b", {}, "t.json row 2: column 'label' is empty"),
        ([0, 1], "a,b", {"b": ["y", "7"]}, "t.json row 2: the option '7' occurs twice"),
        ([0, 1], "a,b", {"b": ["y", " "]}, "t.json row 2: column 'b' is empty"),
        ([0, 1], "a,b", {"b": [0, 1]}, "t.json row 1: option 'b' is empty or no text: 0"),
        ([0, 0], "all", {"all": [["x", "y"], ["z"]]}, r"row 2: column 'all' holds \['z'\], and no list of two or more"),
        ([0, 0], "all", {"all": [["x", "y"], ["z", " "]]}, "row 2: option 1 of column 'all' is empty or no text"),
        ([0, 0], "a,label", {}, "none of them is also the text's or the label's"),
        ([0, 0], "a,id", {"id": ["x", "y"]}, "column 'id' .* rename the column"),
    ],
)
@pytest.mark.parametrize("prompt", [None, "{a} or {b}:"])
def test_options_that_cannot_be_learnt(
    label: list[Any], options: str, change: dict[str, Any], message: str, prompt: str | None
) -> None:
    with pytest.raises(DataError, match=message):
        labels(label, options, change, prompt)
