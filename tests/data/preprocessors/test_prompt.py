"""Prompts as batches."""

from typing import Any

import pytest

from beft_lightning.data import PROMPT_TASKS, Glue, Prompted
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.options import OptionPreprocessor
from beft_lightning.data.preprocessors.preprocessor import NO_LABEL
from beft_lightning.models import load_tokenizer


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
    assert batch["labels"].shape == (examples, 1)
    assert "calibration" not in batch


def test_cut_prompts_are_reported(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr("beft_lightning.data.preprocessors.language_model.rank_zero_info", messages.append)
    make(max_length=6)
    assert any("are longer than 6 tokens and lost their beginning" in message for message in messages)
    messages.clear()
    make(max_length=60)
    assert messages == []


def test_examples_may_have_several_right_options(decoder: str) -> None:
    preprocessor = OptionPreprocessor(PROMPT_TASKS["record"], load_tokenizer(decoder), EncodingOptions(32))
    options = (" good", " bad", " fine")
    features = preprocessor.encode([Prompted("the", options, labels, id=0) for labels in ((0, 2), (1,))])
    assert preprocessor.collate_evaluation(features)["labels"].tolist() == [[0, 2], [1, NO_LABEL]]
    assert preprocessor.collate_training(features)["labels"].tolist() == [0, 1]
