"""SuperGLUE as a DataModule."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beft_lightning.data import SuperGlue
from beft_lightning.data.task import DEV
from beft_lightning.errors import DataError


@pytest.fixture
def multirc(decoder: str, tmp_path: Path) -> Any:
    """MultiRC with ten paragraphs of two questions with three answers each."""
    answers = [{"idx": i, "text": word, "label": i % 2} for i, word in enumerate(("good", "bad", "plot"))]
    questions = [{"idx": i, "question": f"the film {i}", "answers": answers} for i in range(2)]
    rows = [{"idx": i, "passage": {"text": "the story", "questions": questions}} for i in range(10)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**options: Any) -> SuperGlue:
        data = SuperGlue(decoder, task="multirc", data_dir=tmp_path, batch_size=2, **{"seed": 0, **options})
        data.setup("fit")
        return data

    return make


def places(data: SuperGlue, split: str) -> list[int]:
    return [features["id"] for features in data._splits[split]]


def paragraphs(data: SuperGlue, split: str) -> set[int]:
    return {place // 6 for place in places(data, split)}


def test_the_dev_set_of_multirc_holds_whole_paragraphs(multirc: Any) -> None:
    data = multirc(dev_size=10)
    assert len(places(data, DEV)) == 12
    assert len(paragraphs(data, DEV)) == 2
    assert not paragraphs(data, DEV) & paragraphs(data, "train")
    assert len(places(data, "train")) == 48
    smaller = multirc(dev_size=10, train_size=20)
    assert places(smaller, DEV) == places(data, DEV)
    assert places(smaller, "train") == places(data, "train")[:20]
    with pytest.raises(DataError, match="dev_size 60 leaves none of the training examples"):
        multirc(dev_size=60)


def test_without_a_dev_set_multirc_is_a_permutation_of_its_answers(multirc: Any) -> None:
    expected = np.random.RandomState(0).permutation(60)
    assert places(multirc(train_size=20), "train") == expected[:20].tolist()


def test_real_cb_is_small_enough_that_low_is_all_of_it(minilm: str, data_dir: Path) -> None:
    ids = {}
    for size in ("low", "all"):
        data = SuperGlue(minilm, task="cb", data_dir=data_dir, train_size=size, seed=0)
        data.setup("fit")
        ids[size] = sorted(i for batch in data.train_dataloader() for i in batch["id"].tolist())
    assert ids["low"] == ids["all"] == list(range(250))


def test_wic_does_not_show_the_target_word(minilm: str, data_dir: Path) -> None:
    rows = SuperGlue(minilm, task="wic", data_dir=data_dir).read("validation")
    assert set(rows[0]) == {"sentence1", "sentence2", "label", "id", "file_id"}


def test_copa_for_encoders_has_a_row_for_each_choice(minilm: str, data_dir: Path) -> None:
    data = SuperGlue(minilm, task="copa", data_dir=data_dir, train_size=8, batch_size=4, seed=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape[:2] == (4, 2)
    assert batch["attention_mask"].sum(dim=2).max() == batch["input_ids"].shape[2]
    assert batch["labels"].shape == batch["id"].shape == (4,)
    assert data.tokenizer is not None
    row = data.read("train")[batch["id"][0]]
    text = data.tokenizer.decode(batch["input_ids"][0, 1], skip_special_tokens=True)
    assert text == f"{row['premise']} {row['question']} {row['choice2']}".lower()
