"""Conversations as a task."""

from typing import Any

import pytest

from beft_lightning.data.chat_task import ChatTask, Conversation
from beft_lightning.errors import DataError
from tests.chats import conversation

TASK = ChatTask(name="chats", column="messages")


def test_a_conversation_ends_with_its_last_answer() -> None:
    messages = conversation("the film", "good", "bad")
    (parsed,) = TASK.parse([("a.jsonl row 1", {"messages": [{**m, "weight": 1} for m in messages]})], "a.jsonl")
    assert parsed == Conversation(tuple(messages[:2]), id=0, where="a.jsonl row 1")
    assert parsed.prompt == tuple(messages[:1])


def test_a_new_answer_follows_a_last_message_of_the_user() -> None:
    messages = tuple(conversation("the film", "good", "bad"))
    assert Conversation(messages).prompt == messages


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("Hi", r"c.jsonl row 4: column 'messages' is no list of messages but 'Hi'"),
        ([], "is no list of messages but"),
        (None, "is no list of messages but None"),
        (["Hi"], "message 1 of column 'messages' has no role and content: 'Hi'"),
        ([{"from": "human", "value": "Hi"}], "message 1 .* has no role and content"),
        (
            [*conversation("a"), {"role": "bot", "content": "b"}],
            "message 2 .* the unknown role 'bot'; choose one of: s",
        ),
        (conversation("a", " "), "message 2 .* has a content that is empty"),
        (conversation("a", None), "message 2 .* has a content that is empty or no text: None"),  # type: ignore[arg-type]
        (conversation("a"), "row 4: the conversation in column 'messages' has no message of the assistant to learn"),
    ],
)
def test_what_is_no_conversation_to_learn(messages: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TASK.parse([("c.jsonl row 4", {"messages": messages})], "c.jsonl")


def test_a_missing_column() -> None:
    with pytest.raises(DataError, match="row 1: no column 'messages'; there are: chat"):
        TASK.parse([("row 1", {"chat": []})], "c.jsonl")


def test_baselines_belong_to_prompts() -> None:
    TASK.with_baselines(0, False)
    with pytest.raises(DataError, match="chats has none"):
        TASK.with_baselines(2, False)
