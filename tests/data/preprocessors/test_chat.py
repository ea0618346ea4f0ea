"""Conversations as batches."""

from dataclasses import replace
from typing import Any

import pytest

from beft_lightning.data.chat_task import ChatTask, Conversation
from beft_lightning.data.generation import Generation
from beft_lightning.data.preprocessors import EncodingOptions
from beft_lightning.data.preprocessors.chat import ChatPreprocessor
from beft_lightning.errors import DataError
from tests.chats import TEMPLATE, chat_tokenizer, conversation

TOKENIZER = chat_tokenizer()
TASK = ChatTask(name="chats", column="messages", generation=Generation(3, "end_of_text"))
LONG = Conversation(tuple(conversation("the film", "good\nplot", "bad", "but fine")), id=4, where="c.jsonl row 5")
SHORT = Conversation(tuple(conversation("a", "story")), id=7, where="c.jsonl row 8")


def make(max_length: int = 64) -> ChatPreprocessor:
    return ChatPreprocessor(TASK, TOKENIZER, EncodingOptions(max_length))


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the preprocessor logs."""
    logged: list[str] = []
    monkeypatch.setattr("beft_lightning.data.preprocessors.language_model.rank_zero_info", logged.append)
    return logged


def tokens(ids: Any) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=False))


def test_every_answer_is_learnt_and_nothing_else() -> None:
    preprocessor = make()
    batch = preprocessor.collate_training(preprocessor.encode([LONG, SHORT]))
    for row, learnt in enumerate(["good\nplot[END]but fine[END]", "story[END]"]):
        assert tokens(batch["target_token"][batch["target_row"] == row]) == learnt


def test_a_token_before_an_answer_and_of_it_belongs_to_it() -> None:
    """As where a tokenizer merges the line break of the template with one that begins the answer."""
    preprocessor = make()
    encode = preprocessor._tokens

    def merged(text: str) -> Any:
        ids, offsets = encode(text)
        place = offsets.index((text.index("story") - 1, text.index("story")))  # the space and the word, as one token
        whole = (offsets[place][0], offsets[place + 1][1])
        return (*ids[: place + 1], *ids[place + 2 :]), [*offsets[:place], whole, *offsets[place + 2 :]]

    preprocessor._tokens = merged  # type: ignore[method-assign]
    encoded = preprocessor._learnt(SHORT)
    assert tokens([encoded.ids[place] for place in encoded.learnt]) == " [END]"


def test_the_last_answer_is_to_be_generated() -> None:
    preprocessor = make()
    batch = preprocessor.collate_evaluation(preprocessor.encode([LONG, SHORT]))
    assert batch["id"].tolist() == [4, 7]
    assert batch["answers"] == [[["but fine"]], [["story"]]]
    long, short = (
        tokens(ids[mask.bool()]) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    )
    assert long == "user: the film[END]\nassistant: good\nplot[END]\nuser: bad[END]\nassistant: "
    assert short == "user: a[END]\nassistant: "
    assert batch["attention_mask"][1].tolist() == sorted(batch["attention_mask"][1].tolist())  # padded on the left
    assert batch["learnt"].keys() == preprocessor.collate_training(preprocessor.encode([LONG])).keys()


def test_a_conversation_without_a_last_answer_has_no_loss() -> None:
    preprocessor = make()
    features = preprocessor.encode([Conversation(LONG.messages[:3], id=1), SHORT])
    batch = preprocessor.collate_evaluation(features)
    assert "learnt" not in batch
    assert tokens(batch["input_ids"][0]).endswith("user: bad[END]\nassistant: ")
    assert preprocessor.length(features[0]) == len(features[0]["prompt"])


def test_a_long_conversation_loses_its_beginning_but_no_answer(messages: list[str]) -> None:
    (whole,) = make().encode([LONG])
    length = len(whole["encoded"].ids)
    assert messages == []
    (cut,) = make(length - 2).encode([LONG])
    assert cut["encoded"].ids == whole["encoded"].ids[2:]
    assert len(cut["prompt"]) == min(len(whole["prompt"]), length - 2 - TASK.generation.max_new_tokens)
    assert make().positions(cut) <= length - 2
    assert "1 of 1 conversations of chats are longer" in messages[0]
    with pytest.raises(DataError, match=r"row 5: what is to be .* raise max_length\. So it is in 1 of 2 examples"):
        make(length - 10).encode([SHORT, LONG])


def test_a_long_prompt_leaves_room_for_its_answer() -> None:
    asked = Conversation(LONG.messages[:3], id=1)
    (whole,), (cut,) = (make(length).encode([asked]) for length in (64, 10))
    assert cut["prompt"] == whole["prompt"][-7:]
    assert (whole["encoded"].truncated, cut["encoded"].truncated) == (0, len(whole["prompt"]) - 7)


def test_a_cut_of_the_prompt_alone_is_logged(messages: list[str]) -> None:
    (whole,) = make().encode([SHORT])
    task, length = replace(TASK, generation=Generation(5, "end_of_text")), len(whole["encoded"].ids)
    (cut,) = ChatPreprocessor(task, TOKENIZER, EncodingOptions(length)).encode([SHORT])
    assert cut["encoded"].ids == whole["encoded"].ids
    assert len(cut["prompt"]) < len(whole["prompt"])
    assert "1 of 1 conversations of chats are longer" in messages[0]


def test_what_is_cut_keeps_its_first_special_token() -> None:
    tokenizer = chat_tokenizer("[BOS]" + TEMPLATE)
    whole, cut = (ChatPreprocessor(TASK, tokenizer, EncodingOptions(length)).encode([LONG])[0] for length in (64, 20))
    assert cut["prompt"] == (tokenizer.bos_token_id, *whole["prompt"][-16:])
    assert cut["encoded"].ids == (tokenizer.bos_token_id, *whole["encoded"].ids[-19:])
    shown = [[features["encoded"].ids[place] for place in features["encoded"].learnt] for features in (whole, cut)]
    assert shown[0] == shown[1]
