"""SuperGLUE as a DataModule."""

from pathlib import Path

from beft_lightning.data import SuperGlue


def test_real_cb_is_small_enough_that_low_is_all_of_it(minilm: str, data_dir: Path) -> None:
    ids = {}
    for size in ("low", "all"):
        data = SuperGlue(minilm, task="cb", data_dir=data_dir, train_size=size, seed=0)
        data.setup("fit")
        ids[size] = sorted(i for batch in data.train_dataloader() for i in batch["id"].tolist())
    assert ids["low"] == ids["all"] == list(range(250))


def test_wic_does_not_show_the_target_word(minilm: str, data_dir: Path) -> None:
    rows = SuperGlue(minilm, task="wic", data_dir=data_dir).read("validation")
    assert set(rows[0]) == {"sentence1", "sentence2", "label", "id"}


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
