"""Tables with conversations."""

import json
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.__main__ import main
from beft_lightning.checkpoint import MODEL_KEY, read_checkpoint
from beft_lightning.data import Table
from beft_lightning.data.generation import Generation
from beft_lightning.errors import DataError
from tests.chats import conversation, save_chat_backbone

CHATS = [
    conversation("the film", "good\nplot", "the story", "bad"),
    conversation("the plot", "a fine plot\nbut dull"),
    [{"role": "system", "content": "not very"}, *conversation("the film", "bad")],
]


def write(path: Path, chats: list[Any], column: str = "messages") -> Path:
    path.write_text("".join(json.dumps({column: chat}) + "\n" for chat in chats))
    return path


def test_a_fit_on_conversations_and_its_predictions(chat_backbone: str, tmp_path: Path) -> None:
    """By the command line alone: the last answers are learnt, of several turns and lines, and they end."""
    data = write(tmp_path / "chats.jsonl", CHATS)
    assert (
        main(
            f"fit --model.backbone {chat_backbone} --model.tune full --model.learning_rate 0.01 --data Table "
            f"--data.train {data} --data.messages messages --data.validation {data} --data.batch_size 3 "
            "--data.max_new_tokens 12 --data.generate.num_beams 2 --data.metrics [answer_em,rouge1] "
            "--trainer.max_epochs 60 --trainer.check_val_every_n_epoch 60 --trainer.enable_progress_bar false "
            f"--trainer.default_root_dir {tmp_path}".split()
        )
        == 0
    )
    run = tmp_path / "lightning_logs" / "version_0"
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    assert metrics["val_answer_em"] == metrics["val_rouge1"] == 1
    assert metrics["val_loss"] < 0.1
    checkpoint = run / "checkpoints" / "last.ckpt"
    record = read_checkpoint(checkpoint)[MODEL_KEY]["task"]
    assert record["column"] == "messages"
    assert record["generation"] == {"max_new_tokens": 12, "stop": "end_of_text", "options": {"num_beams": 2}}
    asked = write(tmp_path / "new.jsonl", [CHATS[0][:1], CHATS[1][:1], CHATS[0][:3]])
    out = tmp_path / "out.jsonl"
    assert main(f"predict --ckpt_path {checkpoint} --input {asked} --out {out}".split()) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["text"] for row in rows] == ["good\nplot", "a fine plot\nbut dull", "bad"]


def test_the_options_of_a_table_are_those_of_its_task(chat_backbone: str, tmp_path: Path) -> None:
    data = Table(chat_backbone, write(tmp_path / "c.jsonl", CHATS, "chat"), messages="chat", max_new_tokens=5)
    assert (data.task.kind, data.task.input_columns) == ("chat", ("chat",))
    assert data.task.generation == Generation(5, "end_of_text")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("chats", "options", "message"),
    [
        (CHATS, {"messages": "chat"}, "no column 'chat'; there are: messages. Set --data.messages"),
        ([CHATS[0], CHATS[1][:1]], {}, "c.jsonl row 2: the conversation in column 'messages' has no message of the a"),
        ([[]], {}, "c.jsonl row 1: column 'messages' is no list of messages"),
        (CHATS, {"answer": "a"}, "--data.answer: kind chat has no use for it"),
        (CHATS, {"stop": "line"}, "--data.stop: the chat template says what ends an answer"),
        (CHATS, {"kind": "chat", "messages": None}, "give --data.messages"),
        (CHATS, {"kind": "classification"}, "--data.messages belongs to the kind chat, not to classification"),
        (CHATS, {"generate": {"beams": 2}}, "generate: 'beams' is no option"),
    ],
)
def test_a_table_that_cannot_be_learnt(
    chats: list[Any], options: dict[str, Any], message: str, chat_backbone: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "c.jsonl", chats)
    with pytest.raises(DataError, match=message):
        Table(chat_backbone, path, **{"messages": "messages", "batch_size": 2, **options})


def test_a_tokenizer_without_a_chat_template(tmp_path: Path) -> None:
    plain = save_chat_backbone(tmp_path / "plain", template=None)
    data = Table(plain, write(tmp_path / "c.jsonl", CHATS), messages="messages", batch_size=2)
    with pytest.raises(DataError, match=r"c.jsonl row \d: the tokenizer has no chat template: give a backbone"):
        data.setup("fit")
