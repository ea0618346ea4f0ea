"""Bodies of requests: what is taken, and what is refused before it costs anything."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from beft_lightning.serving.requests import BODIES, problem_of

TEXT: dict[str, Any] = {"model": "one", "prompt": "a"}
BASES: dict[str, dict[str, Any]] = {
    "completions": TEXT,
    "chat": {"model": "one", "messages": [{"role": "user", "content": "a"}]},
    "classify": {"model": "one", "input": "a"},
    "score": {"model": "one", "prompt": "a", "options": [" b"]},
}


def _problem(route: str, body: bytes) -> str | None:
    try:
        BODIES[route].model_validate_json(body)
    except ValidationError as error:
        return problem_of(error)
    return None


@pytest.mark.parametrize("route", BASES)
def test_what_is_needed_is_enough(route: str) -> None:
    assert _problem(route, json.dumps(BASES[route]).encode()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0},
        {"temperature": 2, "top_p": 1, "seed": -1, "n": 1, "user": "me"},
        {"seed": 2**63 - 1},
        {"stop": None},
        {"stop": []},
        {"stop": "x" * 256},
        {"stop": ["a", "b", "c", "d"]},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_options_of_openai_are_taken(changes: dict[str, Any]) -> None:
    assert _problem("completions", json.dumps({**TEXT, **changes}).encode()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": float("nan")}, "temperature: "),
        ({"temperature": float("inf")}, "temperature: "),
        ({"temperature": -1}, "temperature: "),
        ({"temperature": "1"}, "temperature: "),
        ({"top_p": float("nan")}, "top_p: "),
        ({"top_p": 0}, "top_p: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": True}, "max_tokens: "),
        ({"max_tokens": 1.5}, "max_tokens: "),
        ({"n": 2}, "n: "),
        ({"seed": 2**63}, "seed: "),
        ({"seed": -(2**63) - 1}, "seed: "),
        ({"seed": 0.5}, "seed: "),
        ({"stop": ["a"] * 5}, "stop: List should have at most 4 items"),
        ({"stop": "x" * 257}, "stop: String should have at most 256 characters"),
        ({"stop": ["x" * 257]}, "stop.0: String should have at most 256 characters"),
        ({"stop": [1]}, "stop: "),
        ({"stream": "yes"}, "stream: "),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage: "),
        ({"stream_options": {"other": True}}, "stream_options.other: "),
        ({"prompt": ["a"]}, "prompt: "),
        ({"model": 1}, "model: "),
        ({"tools": []}, "tools: "),
    ],
)
def test_wrong_options_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    assert str(_problem("completions", json.dumps({**TEXT, **changes}).encode())).startswith(message)


@pytest.mark.parametrize(
    ("route", "changes", "message"),
    [
        ("classify", {"input": []}, "input: List should have at least 1 item"),
        ("classify", {"input": ["a"] * 257}, "input: List should have at most 256 items"),
        ("classify", {"input": 1}, "input: "),
        ("classify", {"input": [["a"]]}, "input"),
        ("score", {"options": []}, "options: List should have at least 1 item"),
        ("score", {"options": [" b"] * 257}, "options: List should have at most 256 items"),
        ("chat", {"messages": []}, "messages: List should have at least 1 item"),
        ("chat", {"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role: "),
        ("chat", {"messages": [{"role": "user", "content": None}]}, "messages.0.content: "),
        ("chat", {"max_completion_tokens": 0}, "max_completion_tokens: "),
    ],
)
def test_other_routes_have_limits_of_their_own(route: str, changes: dict[str, Any], message: str) -> None:
    assert str(_problem(route, json.dumps({**BASES[route], **changes}).encode())).startswith(message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": "one", "input": {"sentence": "\\ud800"}}',  # half a character
        b'{"model": "one", "\\ud800": 1}',
        b'{"model": "one", "input": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_is_an_error_that_can_be_sent(body: bytes) -> None:
    problem = _problem("classify", body)
    assert problem is not None
    assert problem.encode()
