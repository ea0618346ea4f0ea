"""How the kind of a table is found."""

from typing import Any

import pytest
from datasets import Dataset

from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds import find_kind
from beft_lightning.errors import DataError

TABLE = Dataset.from_dict(
    {
        "text": ["one", "two"],
        "words": [["one"], ["two", "words"]],
        "name": ["no", "yes"],
        "score": [0.5, 1.0],
        "names": [["no"], []],
        "tags": [["O"], ["O", "B-X"]],
        "a": [0, 1],
        "b": [1, 0],
    }
)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"label": "name"}, "classification"),
        ({"label": "name", "prompt": "{text} is"}, "classification"),
        ({"label": "score"}, "regression"),
        ({"label": "names"}, "multi_label"),
        ({"label": "a,b"}, "multi_label"),
        ({"text": "words", "label": "tags"}, "token_classification"),
        ({"label": "a", "options": "name,words"}, "multiple_choice"),
        ({"label": "a", "options": "words", "prompt": "{text} is"}, "multiple_choice"),
    ],
)
def test_options_and_labels_tell_the_kind(options: dict[str, Any], kind: str) -> None:
    assert find_kind(None, Columns.given(**{"text": "text", **options}), TABLE, "t.json").name == kind


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("tagging", {"label": "name"}, "--data.kind tagging: no such kind; choose one of: classification, regression"),
        (None, {"label": "label"}, "t.json: no column 'label'; there are: text, words"),
        ("multi_label", {"label": "a,c"}, "t.json: no column 'c'"),
        ("classification", {"label": "a,b"}, "--data.label a,b: classification has one column of labels"),
        (None, {"label": "a", "options": "c,d"}, "t.json: no column 'c', 'd'.* Set .*--data.options"),
        (None, {"label": "a,b", "options": "words"}, "t.json: no kind of task has all of these columns"),
        ("multiple_choice", {"label": "a"}, "multiple_choice needs the columns of the options"),
        (None, {"label": "a", "options": "a,b"}, "none of them is also the text's or the label's"),
        ("text", {"prompt": "{text} is"}, "--data.prompt: kind text has no use for it: leave it out"),
        ("classification", {"label": "name", "options": "a,b"}, "--data.options: kind classification has no use for"),
        ("multi_label", {"label": "names", "prompt": "{text} is"}, "--data.prompt: kind multi_label has no use for it"),
        ("token_classification", {"label": "tags", "prompt": "{text}"}, "--data.prompt: kind token_classification has"),
        (None, {"messages": "text", "options": "a,b"}, "--data.options: kind chat has no use for it"),
        (None, {"messages": "text", "answer": "name"}, "--data.answer: kind chat has no use for it"),
        (None, {"label": "names", "prompt": "{text} is"}, "t.json: the rows are of no kind that can be told"),
    ],
)
def test_options_that_suit_no_kind(kind: str | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_kind(kind, Columns.given(**{"text": "text", "label": "label", **options}), TABLE, "t.json")
