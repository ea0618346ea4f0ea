"""Records of prompted tasks."""

import pickle
from dataclasses import replace

import pytest

from beft_lightning.data import PROMPT_TASKS, Prompted
from beft_lightning.errors import DataError

SST2 = PROMPT_TASKS["sst2"]


def test_demonstrations_stand_solved_before_the_example() -> None:
    shown = Prompted("a film It was", (" terrible", " great"), labels=(1,))
    example = Prompted("b It was", (" terrible", " great"), calibration_prompt="It was").with_demonstrations(
        [shown, shown]
    )
    assert example.prompt == "a film It was great\n\na film It was great\n\nb It was"
    assert example.calibration_prompt == "a film It was great\n\na film It was great\n\nIt was"


def test_examples_without_an_id_get_their_place() -> None:
    numbered = SST2.numbered([Prompted("a", ("b",)), Prompted("a", ("b",), id=7)])
    assert [example.id for example in numbered] == [0, 7]


def test_a_regime_takes_all_there_is() -> None:
    assert SST2.regime_size("low", 5000) == 1000
    assert SST2.regime_size("low", 300) == 300
    with pytest.raises(DataError, match="'medium' is not defined for sst2; use low, all, or a number"):
        SST2.regime_size("medium", 5000)


def test_generated_answers_are_not_calibrated() -> None:
    asked = SST2.with_baselines(demonstrations=2, calibrate=True)
    assert (asked.demonstrations, asked.calibrate) == (2, True)
    assert PROMPT_TASKS["drop"].with_baselines(demonstrations=2, calibrate=False).demonstrations == 2
    with pytest.raises(DataError, match="generates its answers, so there are no options to calibrate"):
        PROMPT_TASKS["drop"].with_baselines(demonstrations=0, calibrate=True)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(DataError, match="PromptTask has no kind 'classification'; choose one of: choice, generation"):
        replace(SST2, kind="classification")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(PROMPT_TASKS))
def test_records_can_be_pickled(name: str) -> None:
    assert pickle.loads(pickle.dumps(PROMPT_TASKS[name])) == PROMPT_TASKS[name]


def test_a_column_that_a_function_cannot_use_is_an_error_with_its_place() -> None:
    task = replace(SST2, text=())
    with pytest.raises(DataError, match="file:3: not as sst2 lays its data out .AttributeError: 'int' object"):
        task.parse([("file:3", {"sentence": 5, "label": 1})], "file")


@pytest.mark.parametrize("name", sorted(PROMPT_TASKS))
def test_texts_are_among_the_columns(name: str) -> None:
    task = PROMPT_TASKS[name]
    assert {*task.text, "label", "entities", "answers"} >= {*task.columns} > {*task.text} > set()
