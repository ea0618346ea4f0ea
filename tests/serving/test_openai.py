"""Answers have the form that OpenAI's clients read."""

import json
from typing import Any

import pytest

from beft_lightning.serving.openai import Completion, error_body
from beft_lightning.serving.requests import ChatBody, CompletionBody

types = pytest.importorskip("openai.types", reason="needs OpenAI's client: pip install openai")

CHAT: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "a"}]}
PIECES = [
    {"text": "gr\u00fc\u00df", "tokens": 1, "prompt_tokens": 3, "finish_reason": None},
    {"text": "", "tokens": 2, "prompt_tokens": 3, "finish_reason": None},
    {"text": " dich", "tokens": 3, "prompt_tokens": 3, "finish_reason": "stop"},
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def _events(completion: Completion) -> list[Any]:
    lines = [line for piece in PIECES for line in completion.events(piece)]
    assert all(line.startswith("data: ") and line.endswith("\n\n") for line in lines)
    assert lines.pop() == "data: [DONE]\n\n"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_whole_answer_is_one_of_openais() -> None:
    text = types.Completion.model_validate(
        Completion(CompletionBody(model="one", prompt="a")).whole("hi", PIECES[-1]), strict=True
    )
    assert (text.model, text.choices[0].text, text.choices[0].finish_reason) == ("one", "hi", "stop")
    chat = types.chat.ChatCompletion.model_validate(Completion(ChatBody(**CHAT)).whole("hi", PIECES[-1]), strict=True)
    assert (chat.choices[0].message.role, chat.choices[0].message.content) == ("assistant", "hi")
    for answer in (text, chat):
        assert answer.usage is not None
        assert answer.usage.to_dict() == USAGE


def test_pieces_of_a_text_join_to_the_answer() -> None:
    # As OpenAI's client makes them: without a check, since its own servers send null as a reason, too.
    chunks = [types.Completion.construct(**e) for e in _events(Completion(CompletionBody(model="one", prompt="a")))]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "gr\u00fc\u00df dich"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_pieces_of_a_chat_name_the_role_once_and_the_usage_last_if_asked_for() -> None:
    body = ChatBody(**CHAT, stream=True, stream_options={"include_usage": True})  # type: ignore[arg-type]
    chunks = [types.chat.ChatCompletionChunk.model_validate(e) for e in _events(Completion(body))]
    *spoken, last = chunks
    assert [chunk.choices[0].delta.role for chunk in spoken] == ["assistant", None, None]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == "gr\u00fc\u00df dich"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.to_dict() == USAGE


def test_two_answers_have_ids_of_their_own() -> None:
    ids = {Completion(ChatBody(**CHAT)).whole("", PIECES[-1])["id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(name.startswith("chatcmpl-") for name in ids)


def test_an_error_has_openais_form() -> None:
    assert error_body("wrong")["error"] == {
        "message": "wrong",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
