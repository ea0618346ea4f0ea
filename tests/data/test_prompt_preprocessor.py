"""Prompts as batches; demonstrations and calibration."""

from typing import Any

import pytest

from beft_lightning.data import Glue
from beft_lightning.data.prompt_preprocessor import demonstrated
from beft_lightning.data.prompt_task import Prompted
from beft_lightning.errors import DataError


@pytest.fixture
def make(decoder: str, sst2_dir: str) -> Any:
    def build(**options: Any) -> Glue:
        data = Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, **{"batch_size": 4, "seed": 0, **options})
        data.setup("fit")
        return data

    return build


def test_an_evaluation_batch_holds_options_and_what_they_are_compared_with(make: Any) -> None:
    (loader,) = make(eval_batch_size=8).val_dataloader()
    batch = next(iter(loader))
    examples = len(batch["id"])
    assert 1 < examples <= 8
    assert batch["option_row"].tolist() == [i for i in range(examples) for _ in range(2)]
    assert [len(gold) for gold in batch["gold"]] == [1] * examples
    assert "calibration" not in batch


def test_calibration_adds_the_options_behind_an_empty_prompt(make: Any) -> None:
    (loader,) = make(calibrate=True).val_dataloader()
    batch = next(iter(loader))
    assert batch["calibration"]["option_row"].tolist() == batch["option_row"].tolist()
    assert batch["calibration"]["input_ids"].shape[1] < batch["input_ids"].shape[1]


def test_demonstrations_stand_solved_before_the_example() -> None:
    shown = Prompted("a film It was", (" terrible", " great"), gold=(1,))
    example = demonstrated(Prompted("b It was", (" terrible", " great"), calibration_prompt="It was"), [shown, shown])
    assert example.prompt == "a film It was great\n\na film It was great\n\nb It was"
    assert example.calibration_prompt == "a film It was great\n\na film It was great\n\nIt was"


@pytest.mark.parametrize(("kind", "different"), [("per_example", True), ("fixed", False)])
def test_demonstrations_are_drawn_anew_or_once(kind: str, different: bool, make: Any) -> None:
    data = make(demonstrations=3, demonstration_set=kind)
    contexts = {
        example.prompt.rpartition("\n\n")[0] for example, _ in data._demonstrated(data._chosen("validation")[:10])
    }
    assert (len(contexts) > 1) == different
    assert all(context.count("\n\n") == 2 for context in contexts)


def test_too_many_demonstrations_are_an_error(make: Any) -> None:
    with pytest.raises(DataError, match="100 demonstrations asked for, but 48 training examples"):
        make(demonstrations=100)


def test_demonstrations_belong_to_prompts(backbone: str, sst2_dir: str) -> None:
    with pytest.raises(DataError, match="belong to prompts, and sst2 is read without one"):
        Glue(backbone, task="sst2", data_dir=sst2_dir, demonstrations=2)


def test_cut_prompts_are_reported(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("beft_lightning.data.prompt_preprocessor.rank_zero_info", messages.append)
    make(max_length=6)
    assert any("are longer than 6 tokens and lost their beginning" in message for message in messages)
    messages.clear()
    make(max_length=60)
    assert messages == []


def test_an_evaluation_subset_is_the_prefix_of_a_permutation(make: Any) -> None:
    ids = []
    for size in (5, 12):
        (loader,) = make(eval_size=size).val_dataloader()
        ids.append({i for batch in loader for i in batch["id"].tolist()})
    assert len(ids[0]) == 5
    assert ids[0] < ids[1]
