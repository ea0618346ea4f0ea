"""Tables with free text."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from beft_lightning import LanguageTaskModule
from beft_lightning.__main__ import main
from beft_lightning.data import Table
from beft_lightning.errors import DataError

TEXTS = ["the film was good", "a dull plot", "the story was not bad", "fine"]


def write(path: Path, texts: list[Any]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_a_fit_on_free_text_and_its_perplexities(chat_backbone: str, tmp_path: Path) -> None:
    data = write(tmp_path / "texts.jsonl", TEXTS)
    assert (
        main(
            f"fit --model.backbone {chat_backbone} --model.tune full --model.learning_rate 0.01 --data Table "
            f"--data.train {data} --data.kind text --data.validation {data} --data.batch_size 4 "
            "--trainer.max_epochs 20 --trainer.check_val_every_n_epoch 20 --trainer.enable_progress_bar false "
            f"--trainer.default_root_dir {tmp_path}".split()
        )
        == 0
    )
    run = tmp_path / "lightning_logs" / "version_0"
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    assert 1 < metrics["val_perplexity"] < 3
    assert metrics["val_loss"] < 1
    (tmp_path / "new.txt").write_text("the film was good\nof it with dull\n")
    out = tmp_path / "out.jsonl"
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert main(f"predict --ckpt_path {checkpoint} --input {tmp_path / 'new.txt'} --out {out}".split()) == 0
    known, new = (json.loads(line) for line in out.read_text().splitlines())
    assert known["text"] == "the film was good"
    assert known["perplexity"] < 5 < new["perplexity"] == pytest.approx(math.exp(new["loss"]))


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (TEXTS, {"text": "page"}, "no column 'page'; there are: text. Set --data.text to"),
        (TEXTS, {"text": "text,page"}, "kind text has one column of texts"),
        ([*TEXTS, " "], {}, "t.jsonl row 5: column 'text' is empty"),
        ([1, 2], {}, "t.jsonl row 1: column 'text' is no text but 1"),
        (TEXTS, {"max_new_tokens": 4}, "--data.max_new_tokens belongs to generated answers"),
    ],
)
def test_a_table_that_cannot_be_learnt(
    texts: list[Any], options: dict[str, Any], message: str, chat_backbone: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        Table(chat_backbone, write(tmp_path / "t.jsonl", texts), **{"kind": "text", "batch_size": 2, **options})


def test_loss_and_perplexity_do_not_depend_on_packing_or_batches(
    chat_backbone: str, tmp_path: Path, make_trainer: Any
) -> None:
    data = write(tmp_path / "t.jsonl", [*TEXTS, "it"])
    results = []
    for options in ({"packing": False}, {}, {"max_length": 16}):
        for size in (1, 2, 64):
            table = Table(
                chat_backbone, data, validation=data, kind="text", batch_size=2, eval_batch_size=size, **options
            )
            module = LanguageTaskModule(chat_backbone, table.task, tune="value")
            (result,) = make_trainer().validate(module, datamodule=table, verbose=False)
            assert result["val_loss"] == pytest.approx(math.log(result["val_perplexity"]), rel=1e-5)
            results.append(result["val_loss"])
    assert results == pytest.approx([results[0]] * len(results), rel=1e-5)


def test_texts_are_predicted_one_by_one(chat_backbone: str, tmp_path: Path, make_trainer: Any) -> None:
    data = write(tmp_path / "t.jsonl", TEXTS)
    table = Table(chat_backbone, data, validation=data, kind="text", batch_size=2)
    table.setup("fit")
    assert [len(batch["input_ids"]) for batch in table.train_dataloader()] == [1]
    predictions = make_trainer().predict(LanguageTaskModule(chat_backbone, table.task, tune="value"), datamodule=table)
    assert sorted(row["id"] for batch in predictions for row in batch["rows"]) == [0, 1, 2, 3]
