"""Objects of original files and of the hub give the same rows."""

import pytest

from beft_lightning.data.benchmarks.original_files import drop_spans, flatten_multirc, flatten_squad, flatten_wsc
from beft_lightning.errors import DataError

HUB_SQUAD = {
    "id": "q7",
    "title": "Cars",
    "context": "The car is red.",
    "question": "Which?",
    "answers": {"text": ["red"]},
}


def test_wsc() -> None:
    spans = {"span1_text": "Ann", "span2_text": "She"}
    (nested,) = flatten_wsc({"text": "She left.", "target": spans})
    (flat,) = flatten_wsc({"text": "She left.", **spans})
    assert {name: nested[name] for name in flat} == flat


def test_multirc() -> None:
    answers = [{"idx": 0, "text": "Ann", "label": 1}]
    passage = {"text": "Ann left.", "questions": [{"idx": 4, "question": "Who?", "answers": answers}]}
    (nested,) = flatten_multirc({"idx": 2, "passage": passage})
    row = {"paragraph": "Ann left.", "question": "Who?", "answer": "Ann", "label": 1}
    (flat,) = flatten_multirc({**row, "idx": {"paragraph": 2, "question": 4, "answer": 0}})
    assert {name: flat[name] for name in nested} == nested


@pytest.mark.parametrize(("begin", "right"), [(11, True), (4, False)])
def test_squad(begin: int, right: bool) -> None:
    qa = {"id": "q7", "question": "Which?", "answers": [{"text": "red", "answer_start": begin}]}
    article = {"title": "Cars", "paragraphs": [{"context": "The car is red.", "qas": [qa]}]}
    if right:
        assert list(flatten_squad(article)) == list(flatten_squad(HUB_SQUAD)) == [HUB_SQUAD]
    else:
        with pytest.raises(DataError, match="question q7: the answer 'red' is not at 4"):
            list(flatten_squad(article))


def test_a_drop_answer_without_content_has_no_spans() -> None:
    assert drop_spans({"number": "", "spans": [], "date": {}}) == []
