"""Official files of predictions."""

import json
from typing import Any

import pytest

from beft_lightning.data import (
    GLUE_TASKS,
    PROMPT_TASKS,
    SUPER_GLUE_TASKS,
    Drop,
    Glue,
    Squad,
    SuperGlue,
    Task,
    TaskRecord,
)
from beft_lightning.data.benchmarks.submissions import SUBMISSIONS, file_name, find_submission, write_submission
from beft_lightning.errors import DataError


def content(task: TaskRecord, rows: list[dict[str, Any]]) -> str:
    return write_submission(find_submission(task), rows, task.labels)


@pytest.mark.parametrize(
    ("name", "prediction", "line"),
    [
        ("cola", {"label": "acceptable"}, "1"),
        ("sst2", {"label": "negative"}, "0"),
        ("mrpc", {"label": "equivalent"}, "1"),
        ("qqp", {"label": "not_duplicate"}, "0"),
        ("wnli", {"label": "entailment"}, "1"),
        ("mnli", {"label": "contradiction"}, "contradiction"),
        ("qnli", {"label": "not_entailment"}, "not_entailment"),
        ("rte", {"label": "entailment"}, "entailment"),
        ("stsb", {"score": 3.14159}, "3.142"),
        ("stsb", {"score": 5.2}, "5.000"),
    ],
)
def test_glue(name: str, prediction: dict[str, Any], line: str) -> None:
    rows = [{"index": str(number), **prediction} for number in (1, 0)]
    assert content(GLUE_TASKS[name], rows) == f"index\tprediction\n0\t{line}\n1\t{line}\n"


@pytest.mark.parametrize(
    ("task", "prediction", "label"),
    [
        (PROMPT_TASKS["boolq"], "true", "true"),
        (PROMPT_TASKS["wic"], "false", "false"),
        (SUPER_GLUE_TASKS["wic"], "false", "false"),
        (PROMPT_TASKS["wsc"], "true", "True"),
        (PROMPT_TASKS["rte"], "entailment", "entailment"),
        (SUPER_GLUE_TASKS["cb"], "neutral", "neutral"),
        (PROMPT_TASKS["copa"], "choice2", 1),
        (SUPER_GLUE_TASKS["copa"], "choice1", 0),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_super_glue(task: TaskRecord, prediction: str, label: Any) -> None:
    lines = content(task, [{"idx": 0, "label": prediction}]).splitlines()
    assert [json.loads(line) for line in lines] == [{"idx": 0, "label": label}]


def test_multirc_nests_answers_and_record_names_entities() -> None:
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 2, 3)]
    rows = [
        {"idx": dict(zip(("paragraph", "question", "answer"), place, strict=True)), "label": label}
        for place, label in zip(places, ("true", "false", "true", "true"), strict=True)
    ]
    first, second = map(json.loads, content(PROMPT_TASKS["multirc"], rows[::-1]).splitlines())
    assert first == {
        "idx": 0,
        "passage": {
            "questions": [
                {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]},
                {"idx": 1, "answers": [{"idx": 2, "label": 1}]},
            ]
        },
    }
    assert second == {"idx": 1, "passage": {"questions": [{"idx": 2, "answers": [{"idx": 3, "label": 1}]}]}}
    queries = [{"idx": {"passage": 7, "query": query}, "label": f"Zoë {query}"} for query in (1, 0)]
    assert content(PROMPT_TASKS["record"], queries) == '{"idx": 0, "label": "Zoë 0"}\n{"idx": 1, "label": "Zoë 1"}\n'


def test_every_task_of_both_benchmarks_has_a_file() -> None:
    tasks = [t for b in (Glue, SuperGlue) for t in (*b.tasks.values(), *b.prompt_tasks.values())]
    assert {(task.hub[0], task.name) for task in tasks} == set(SUBMISSIONS)
    for benchmark in (Squad, Drop):
        for task in benchmark.prompt_tasks.values():
            with pytest.raises(DataError, match=f"task '{task.name}' has no official file"):
                find_submission(task)
    with pytest.raises(DataError, match="'sst2' has no official file"):  # a table that has the name of a benchmark
        find_submission(Task(name="sst2", kind="classification", text=("a",), labels=("b", "c"), metrics=("accuracy",)))


def test_the_test_sets_of_mnli_are_told_apart() -> None:
    mnli = find_submission(GLUE_TASKS["mnli"])
    named = {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv", "diagnostic": "AX.tsv"}
    assert {name: file_name(mnli, f"matched/{name}.tsv") for name in named} == named
    assert file_name(find_submission(GLUE_TASKS["sst2"]), "any.tsv") == "SST-2.tsv"
    with pytest.raises(DataError, match="give --submission a file name, one of MNLI-mm.tsv, MNLI-m.tsv, AX.tsv"):
        file_name(mnli, "matched/test.tsv")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([{"index": 0}, {}], "row 2 has no number in a column index"),
        ([{"index": "a"}], "row 1 has no number"),
        ([{"idx": 0}, {"idx": 0}], "row 2: another row has the number 0, too"),
        ([{"id": 0}, {"id": 2}], "the row of number 1 is missing: there are 2 rows, with numbers up to 2"),
        ([{"idx": 1}], "the row of number 0 is missing"),
    ],
)
def test_rows_that_are_missing_or_have_no_number(ids: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        content(GLUE_TASKS["sst2"], [{**row, "label": "positive"} for row in ids])
    if "idx" in ids[0]:
        with pytest.raises(DataError, match="row 1 has no number"):
            content(PROMPT_TASKS["multirc"], [{**row, "label": "true"} for row in ids])
