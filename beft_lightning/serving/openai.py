"""Answers in the form of OpenAI's completions and chat completions."""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from beft_lightning.serving.requests import ChatBody, CompletionBody


class Completion:
    """One answer to a request for text, whole or as the pieces of a stream.

    Args:
        body: The request.
    """

    def __init__(self, body: ChatBody | CompletionBody) -> None:
        self._chat = isinstance(body, ChatBody)
        self._usage_wanted = body.stream_options is not None and body.stream_options.include_usage
        self._head = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
        }
        self._begun = False

    def whole(self, text: str, last: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of a response.

        Args:
            text: The answer.
            last: The engine's last piece of it.
        """
        content = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": [_choice(content, last)], "usage": _usage(last)}

    def events(self, piece: Mapping[str, Any]) -> list[str]:
        """Return the server-sent events for a piece of the answer."""
        delta: dict[str, Any] = {"content": piece["text"]}
        if not self._begun:
            delta = {"role": "assistant", **delta}
        self._begun = True
        content = {"delta": delta} if self._chat else {"text": piece["text"]}
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        chunks: list[dict[str, Any]] = [{**self._head, "object": kind, "choices": [_choice(content, piece)]}]
        if piece["finish_reason"] and self._usage_wanted:
            chunks.append({**self._head, "object": kind, "choices": [], "usage": _usage(piece)})
        ending = ["data: [DONE]\n\n"] if piece["finish_reason"] else []
        return [*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), *ending]


def error_body(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """Return the body of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _choice(content: Mapping[str, Any], piece: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": 0, **content, "logprobs": None, "finish_reason": piece["finish_reason"]}


def _usage(piece: Mapping[str, Any]) -> dict[str, int]:
    prompt, answer = piece["prompt_tokens"], piece["tokens"]
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
