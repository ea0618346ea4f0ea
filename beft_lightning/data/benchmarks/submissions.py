"""The files of predictions that the servers of GLUE and SuperGLUE take.

The layouts are those of gluebenchmark.com and super.gluebenchmark.com, as jiant, the toolkit of their authors, writes
them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beft_lightning.data.sources import Row, file_id
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError

#: Writes the predicted label or score of a row, given the label names.
_Render = Callable[[Row, Sequence[str]], Any]


@dataclass(frozen=True)
class Submission:
    """The official file of a task.

    Args:
        names: Name of the file; where there are several test sets, the part of an input's name that tells them apart
            -> name of the file.
        size: Number of rows of the test set, for each name.
        number: Gives the number of a row in the test set, given its id.
        layout: Writes the content, given the numbered rows in their order and the label names.
    """

    names: Mapping[str, str]
    size: Mapping[str, int]
    layout: Callable[[Mapping[int, Row], Sequence[str]], str]
    number: Callable[[Any], Any] = lambda own: own


def _index(row: Row, labels: Sequence[str]) -> int:
    return labels.index(row["label"])


def _name(row: Row, labels: Sequence[str]) -> str:
    return str(row["label"])


def _capitalized(row: Row, labels: Sequence[str]) -> str:
    return str(row["label"]).capitalize()


def _score(row: Row, labels: Sequence[str]) -> str:
    return f"{min(max(row['score'], 0.0), 5.0):.3f}"


def _tsv(render: _Render) -> Callable[[Mapping[int, Row], Sequence[str]], str]:
    """GLUE's layout: a line for each row."""

    def layout(rows: Mapping[int, Row], labels: Sequence[str]) -> str:
        lines = [f"{number}\t{render(row, labels)}" for number, row in rows.items()]
        return "\n".join(["index\tprediction", *lines, ""])

    return layout


def _jsonl(render: _Render) -> Callable[[Mapping[int, Row], Sequence[str]], str]:
    """SuperGLUE's layout: an object for each row."""

    def layout(rows: Mapping[int, Row], labels: Sequence[str]) -> str:
        return _lines({"idx": number, "label": render(row, labels)} for number, row in rows.items())

    return layout


def _nested(rows: Mapping[int, Row], labels: Sequence[str]) -> str:
    """MultiRC's layout: an object for each passage, with its questions and their answers in it."""
    passages: dict[int, dict[int, list[Row]]] = {}
    for row in rows.values():
        place = row["idx"]
        answer = {"idx": place["answer"], "label": _index(row, labels)}
        passages.setdefault(place["paragraph"], {}).setdefault(place["question"], []).append(answer)
    return _lines(
        {"idx": passage, "passage": {"questions": [{"idx": q, "answers": answers} for q, answers in questions.items()]}}
        for passage, questions in passages.items()
    )


def _lines(objects: Any) -> str:
    return "".join(json.dumps(content, ensure_ascii=False) + "\n" for content in objects)


def _glue(name: str, size: int, render: _Render) -> Submission:
    return Submission({"": name}, {name: size}, _tsv(render))


def _super_glue(name: str, size: int, render: _Render) -> Submission:
    return Submission({"": name}, {name: size}, _jsonl(render))


_GLUE, _SUPER_GLUE = "nyu-mll/glue", "aps/super_glue"
#: Hub id of the benchmark and name of the task -> its official file.
SUBMISSIONS: Mapping[tuple[str, str], Submission] = {
    (_GLUE, "cola"): _glue("CoLA.tsv", 1063, _index),
    (_GLUE, "sst2"): _glue("SST-2.tsv", 1821, _index),
    (_GLUE, "mrpc"): _glue("MRPC.tsv", 1725, _index),
    (_GLUE, "qqp"): _glue("QQP.tsv", 390965, _index),
    (_GLUE, "stsb"): _glue("STS-B.tsv", 1379, _score),
    (_GLUE, "qnli"): _glue("QNLI.tsv", 5463, _name),
    (_GLUE, "rte"): _glue("RTE.tsv", 3000, _name),
    (_GLUE, "wnli"): _glue("WNLI.tsv", 146, _index),
    (_GLUE, "mnli"): Submission(
        {"mismatched": "MNLI-mm.tsv", "matched": "MNLI-m.tsv", "diagnostic": "AX.tsv"},
        {"MNLI-mm.tsv": 9847, "MNLI-m.tsv": 9796, "AX.tsv": 1104},
        _tsv(_name),
    ),
    (_SUPER_GLUE, "boolq"): _super_glue("BoolQ.jsonl", 3245, _name),
    (_SUPER_GLUE, "cb"): _super_glue("CB.jsonl", 250, _name),
    (_SUPER_GLUE, "copa"): _super_glue("COPA.jsonl", 500, _index),
    (_SUPER_GLUE, "rte"): _super_glue("RTE.jsonl", 3000, _name),
    (_SUPER_GLUE, "wic"): _super_glue("WiC.jsonl", 1400, _name),
    (_SUPER_GLUE, "wsc"): _super_glue("WSC.jsonl", 146, _capitalized),
    (_SUPER_GLUE, "multirc"): Submission(
        {"": "MultiRC.jsonl"}, {"MultiRC.jsonl": 9693}, _nested, lambda own: own["answer"]
    ),
    (_SUPER_GLUE, "record"): Submission(
        {"": "ReCoRD.jsonl"}, {"ReCoRD.jsonl": 10000}, _jsonl(_name), lambda own: own["query"]
    ),
}


def find_submission(task: TaskRecord) -> Submission:
    """Return the official file of a task.

    Raises:
        DataError: If there is none.
    """
    found = SUBMISSIONS.get((task.hub[0], task.name))
    if found is None:
        raise DataError(
            f"task {task.name!r} has no official file of predictions: --submission is for the tasks of GLUE and "
            "SuperGLUE, and checkpoints that a fit on their data has written."
        )
    return found


def file_name(submission: Submission, source: str) -> str:
    """Return the official name of a task's file.

    Args:
        submission: The task's official file.
        source: Name of the input file, which tells the test sets of MNLI apart.

    Raises:
        DataError: If it does not.
    """
    for part, name in submission.names.items():
        if part in Path(source).name:
            return name
    raise DataError(
        f"--input {source}: of several test sets, this name does not say which: give --submission a file name, one of "
        f"{', '.join(submission.names.values())}."
    )


def write_submission(submission: Submission, rows: Sequence[Row], labels: Sequence[str]) -> str:
    """Return the content of the official file.

    Args:
        submission: The task's official file.
        rows: The rows of a test set with their predictions, in any order.
        labels: The task's label names.

    Raises:
        DataError: If a row has no id, one is missing, or one is there twice.
    """
    numbered: dict[int, Row] = {}
    for place, row in enumerate(rows, start=1):
        try:
            number = int(submission.number(file_id(row)))
        except (TypeError, KeyError, ValueError, IndexError):
            raise DataError(
                f"row {place} has no number in a column index, idx or id, as the official test files have."
            ) from None
        if number in numbered:
            raise DataError(f"row {place}: another row has the number {number}, too.")
        numbered[number] = row
    if missing := [number for number in range(len(numbered)) if number not in numbered]:
        raise DataError(
            f"the row of number {missing[0]} is missing: there are {len(numbered):,} rows, with numbers up to "
            f"{max(numbered):,}. The server takes all rows of the test set."
        )
    return submission.layout(dict(sorted(numbered.items())), labels)
