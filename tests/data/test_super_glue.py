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
