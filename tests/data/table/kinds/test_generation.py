"""Tables with prompts and answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from beft_lightning import LanguageTaskModule
from beft_lightning.data import Table
from beft_lightning.data.generation import Generation
from beft_lightning.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"film": "great", "review": "a good film\nwith a plot"},
    {"film": "dull", "review": "bad"},
    {"film": "poor", "review": ["not fine", "bad"]},
    {"film": "fine", "review": "good"},
]


@pytest.fixture
def make(chat_backbone: str, tmp_path: Path) -> Any:
    def build(rows: list[dict[str, Any]], **options: Any) -> Table:
        path = tmp_path / "reviews.jsonl"
        texts = [
            {**row, "review": [row["review"]] if isinstance(row["review"], str) else row["review"]} for row in rows
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in texts))
        defaults = {"prompt": "the {film} film:", "answer": "review", "batch_size": 2, "seed": 0, "validation": path}
        return Table(chat_backbone, path, **{**defaults, **options})

    return build


def test_answers_of_several_lines_are_learnt_and_end(make: Any, chat_backbone: str, make_trainer: Any) -> None:
    data = make(ROWS, max_new_tokens=12, metrics=["answer_em", "rougeL"])
    module = LanguageTaskModule(chat_backbone, data.task, tune="full", learning_rate=0.01)
    trainer = make_trainer(max_epochs=100, check_val_every_n_epoch=100)
    trainer.fit(module, datamodule=data)
    measured = {name: float(trainer.callback_metrics[name]) for name in ("val_answer_em", "val_rougeL", "val_loss")}
    assert measured["val_answer_em"] == measured["val_rougeL"] == 1
    assert 0 < measured["val_loss"] < 0.1
    rows = [row for batch in trainer.predict(module, datamodule=data) for row in batch["rows"]]
    written = [row["prediction"] for row in sorted(rows, key=lambda row: int(row["id"]))]
    assert written == ["a good film\nwith a plot", "bad", "not fine", "good"]


def test_the_options_of_a_table_are_those_of_its_task(make: Any) -> None:
    task = make(ROWS).task
    assert (task.kind, task.columns, task.target) == ("generation", ("film", "review"), "review")
    assert task.generation == Generation(256, "end_of_text")
    task = make(ROWS[1:], max_new_tokens=9, stop="line", generate={"num_beams": 2}, metrics=["rouge1"]).task
    assert task.generation == Generation(9, "line", {"num_beams": 2})
    assert task.metrics == ("rouge1",)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            {},
            {"answer": "verdict"},
            "no column 'verdict'; there are: film, review. Set --data.prompt and --data.answer",
        ),
        ({}, {"prompt": "{movie}"}, "no column 'movie'; there are"),
        ({}, {"prompt": None}, "--data.answer review needs a prompt"),
        ({}, {"prompt": "{film} {review}"}, "not the answer's, 'review'"),
        ({}, {"answer": None, "kind": "generation"}, "needs the column of the answers: give --data.answer"),
        ({}, {"kind": "regression"}, "--data.answer belongs to the kind generation, not to regression"),
        ({"review": []}, {}, r"reviews.jsonl row 2: column 'review' is empty"),
        ({"review": ["good", " "]}, {}, "row 2: column 'review' is empty"),
        ({"film": ""}, {}, "row 2: column 'film' is empty"),
        ({"review": ["a\nb"]}, {"stop": "line"}, "row 2: column 'review' has several lines.*--data.stop end_of_text"),
        ({}, {"metrics": ["perplexity"]}, "no metric 'perplexity' for generation"),
        ({}, {"max_length": 40, "max_new_tokens": 40}, "max_new_tokens 40 leaves no room for a prompt"),
        (
            {"review": ["good " * 30]},
            {"max_length": 50, "max_new_tokens": 20},
            "reviews.jsonl row 2: option .* no room",
        ),
    ],
)
def test_a_table_that_cannot_be_learnt(
    change: dict[str, Any], options: dict[str, Any], message: str, make: Any
) -> None:
    def learn() -> None:
        data = make([ROWS[1], {**ROWS[1], **change}, *ROWS[2:]], **options)
        data.setup("fit")
        LanguageTaskModule("none", data.task)

    with pytest.raises(DataError, match=message):
        learn()


def test_an_answer_that_is_no_text(chat_backbone: str, tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text('{"sum": "a", "result": 1}\n{"sum": "b", "result": 2}\n')
    with pytest.raises(DataError, match="sums.jsonl row 1: column 'result' is no text but 1"):
        Table(chat_backbone, tmp_path / "sums.jsonl", prompt="{sum}", answer="result")
