"""Options behind a prompt, and behind one without content."""

from beft_lightning.data import Glue


def test_calibration_adds_the_options_behind_an_empty_prompt(decoder: str, sst2_dir: str) -> None:
    data = Glue(decoder, task="sst2", prompt=True, data_dir=sst2_dir, seed=0, calibrate=True)
    data.setup("validate")
    (loader,) = data.val_dataloader()
    batch = next(iter(loader))
    assert batch["calibration"]["option_row"].tolist() == batch["option_row"].tolist()
    assert batch["calibration"]["input_ids"].shape[1] < batch["input_ids"].shape[1]
