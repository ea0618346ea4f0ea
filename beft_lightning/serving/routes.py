"""The routes of the server: HTTP on one side, LitServe's queue on the other."""

import asyncio
import json
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from litserve import LitAPI
from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, ResponseBufferItem
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from beft_lightning.serving.openai import Completion, error_body
from beft_lightning.serving.requests import BASE_NAME, BODIES, problem_of

#: Keys of the state that the processes of the server share.
ADAPTERS, ACTIVE, DRAINING = "adapters", "active", "draining"
_Answers = AsyncGenerator[dict[str, Any], None]


class BankSpec(LitSpec):
    """The routes, all of which send to one queue, so that requests of all kinds share the base and its batches.

    Args:
        state: What the processes share: the adapters as the worker sees them, and whether the server is ending.
        max_queue: Most requests in the server at a time; further ones get the status 503.
    """

    response_buffer: Any
    request_queue: Any

    def __init__(self, state: MutableMapping[str, Any], max_queue: int) -> None:
        super().__init__()
        self.api_path = "/v1"
        self._state = state
        self._max_queue = max_queue
        self._active = 0

    @property
    def stream(self) -> bool:
        """Whether answers come in parts: some do."""
        return True

    def pre_setup(self, lit_api: LitAPI) -> None:
        """Register the routes."""
        self.add_endpoint("/v1/classify", self.classify, ["POST"])
        self.add_endpoint("/v1/score", self.score, ["POST"])
        self.add_endpoint("/v1/completions", self.completions, ["POST"])
        self.add_endpoint("/v1/chat/completions", self.chat, ["POST"])
        self.add_endpoint("/v1/models", self.models, ["GET"])

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        """Return what the worker gets: route and body, as they are."""
        return request

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Yield the worker's answers as they are."""
        yield from output

    async def models(self) -> Response:
        """List the base, the adapters, and what in the folder is not served."""
        found = self._state[ADAPTERS]
        data = [
            {"id": name, "object": "model", "created": found["time"], "owned_by": "beft_lightning"}
            for name in (BASE_NAME, *found["served"])
        ]
        broken = [{"id": name, "reason": reason} for name, reason in found["broken"].items()]
        return JSONResponse({"object": "list", "data": data, "broken": broken, "problem": found["problem"]})

    async def classify(self, request: Request) -> Response:
        """Predict labels or scores with an adapter's task."""
        return await self._result("classify", request)

    async def score(self, request: Request) -> Response:
        """Return the log-probabilities of options behind a prompt."""
        return await self._result("score", request)

    async def completions(self, request: Request) -> Response:
        """Continue a text."""
        return await self._text("completions", request)

    async def chat(self, request: Request) -> Response:
        """Continue a conversation."""
        return await self._text("chat", request)

    async def _result(self, route: str, request: Request) -> Response:
        body = await _body(route, request)
        if isinstance(body, Response):
            return body
        answers = self._ask(route, body)
        first = await anext(answers)
        await answers.aclose()
        return _failure(first) or JSONResponse({"object": "list", "model": body.model, "data": first["result"]})

    async def _text(self, route: str, request: Request) -> Response:
        body = await _body(route, request)
        if isinstance(body, Response):
            return body
        answers = self._ask(route, body)
        # An error has a status of its own only as long as nothing is sent.
        last = await anext(answers)
        if failed := _failure(last):
            await answers.aclose()
            return failed
        completion = Completion(body)
        if body.stream:
            return StreamingResponse(_stream(completion, last, answers), media_type="text/event-stream")
        text = last["text"]
        async for last in answers:
            if failed := _failure(last):
                return failed
            text += last["text"]
        return JSONResponse(completion.whole(text, last))

    async def _ask(self, route: str, body: Any) -> _Answers:
        """Send a request to the worker, and yield its answers; those that fail here look like the worker's."""
        if self._active >= self._max_queue or self._state[DRAINING]:
            yield {"error": "the server is busy or about to end: try again later.", "status": 503}
            return
        uid, queue, event = uuid.uuid4(), deque[Any](), asyncio.Event()
        self.response_buffer[uid] = ResponseBufferItem(event=event, response_queue=queue)
        self._count(1)
        try:
            self.request_queue.put((self.response_queue_id, uid, time.monotonic(), (route, body)))
            async for answer, status in self.data_streamer(queue, event, send_status=True):
                if status == LitAPIStatus.ERROR:
                    late = isinstance(answer, HTTPException) and answer.status_code == 504
                    reason = "the request has waited too long" if late else "the request has failed; the log says why"
                    yield {"error": f"{reason}.", "status": 504 if late else 500}
                    return
                if answer:
                    yield (found := json.loads(answer))
                    if "result" in found or "error" in found or found["finish_reason"]:
                        return
        finally:
            self.response_buffer.pop(uid, None)
            self._count(-1)

    def _count(self, change: int) -> None:
        self._active += change
        self._state[ACTIVE] = self._active


async def http_error(request: Request, error: Any) -> Response:
    """Return an error of LitServe's own, such as that of a body that is too large, in the form of the others."""
    return JSONResponse(error_body(str(error.detail)), error.status_code, error.headers)


async def _stream(completion: Completion, first: dict[str, Any], answers: _Answers) -> AsyncGenerator[str, None]:
    for event in completion.events(first):
        yield event
    async for answer in answers:
        if "error" in answer:
            yield f"data: {json.dumps(error_body(answer['error'], 'server_error'))}\n\n"
            return
        for event in completion.events(answer):
            yield event


async def _body(route: str, request: Request) -> Any:
    """Return the body of a request, or the response that says what is wrong with it."""
    try:
        # This parser refuses halves of characters, which no tokenizer takes and no answer can hold.
        return BODIES[route].model_validate_json(await request.body())
    except ValidationError as error:
        return JSONResponse(error_body(problem_of(error)), 400)
    except ClientDisconnect:  # nobody reads this
        return Response(status_code=400)


def _failure(answer: dict[str, Any]) -> Response | None:
    """Return the response for an answer that is an error."""
    if "error" not in answer:
        return None
    status = answer["status"]
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse(error_body(answer["error"], kind), status, {"Retry-After": "1"} if status == 503 else None)
