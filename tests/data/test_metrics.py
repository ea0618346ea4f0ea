"""Which metric suits which task."""

from dataclasses import replace

import pytest

from beft_lightning.data import GLUE_TASKS, PROMPT_TASKS, TaskRecord
from beft_lightning.errors import DataError


@pytest.mark.parametrize(
    ("task", "metrics", "message"),
    [
        (GLUE_TASKS["sst2"], ("acc",), "no metric 'acc' for classification with 2 .*: accuracy, f1, macro_f1, mcc"),
        (GLUE_TASKS["sst2"], ("accuracy", "pearson"), "no metric 'pearson' for classification"),
        (GLUE_TASKS["mnli"], ("f1",), "'mnli': no metric 'f1' for .* 3 label names; .*: accuracy, macro_f1, mcc"),
        (GLUE_TASKS["stsb"], ("accuracy",), "no metric 'accuracy' for regression .*: spearman, pearson"),
        (GLUE_TASKS["sst2"], ("micro_f1",), "no metric 'micro_f1' for classification"),
        (PROMPT_TASKS["squad"], ("accuracy",), "for generation .*: answer_f1, answer_em, drop_f1, drop_em"),
        (PROMPT_TASKS["record"], ("macro_f1",), "no metric 'macro_f1' for choice with 0 label names"),
    ],
)
def test_a_task_with_a_metric_that_does_not_suit_is_not_built(
    task: TaskRecord, metrics: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        replace(task, metrics=metrics)
