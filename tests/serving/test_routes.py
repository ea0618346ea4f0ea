"""The two sides of LitServe's queue, without a process and without a model."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

pytest.importorskip("litserve", reason="needs LitServe: pip install 'beft-lightning[serve]'")

from fastapi import Request
from litserve import LitServer
from litserve.callbacks import CallbackRunner

from beft_lightning.serving.routes import ACTIVE, DRAINING, BankSpec
from beft_lightning.serving.server import BankAPI, ServerOptions


def test_no_more_requests_wait_than_the_queue_holds() -> None:
    spec = BankSpec({ACTIVE: 0, DRAINING: False}, max_queue=2)
    spec.response_buffer, spec.request_queue, spec.response_queue_id = {}, SimpleQueue(), 0
    spec.data_streamer = LitServer.data_streamer

    async def body() -> dict[str, object]:
        return {"type": "http.request", "body": b'{"model": "one", "prompt": "a", "options": [" b"]}'}

    async def ask() -> int:
        return (await spec.score(Request({"type": "http"}, body))).status_code

    async def crowd() -> None:
        waiting = [asyncio.create_task(ask()) for _ in range(2)]
        await asyncio.sleep(0)
        while spec.request_queue.qsize() < 2:
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(ask(), 60) == 503
        waiting[0].cancel()  # a client that goes away leaves its place
        await asyncio.wait(waiting[:1])
        waiting[0] = asyncio.create_task(ask())
        while spec.request_queue.qsize() < 3:
            assert not waiting[0].done()
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(ask(), 60) == 503
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    asyncio.run(crowd())


class _Echo(BankAPI):
    def predict(self, x: Any, **options: Any) -> Iterator[list[Any]]:
        yield [{"result": [route, body]} for route, body in x]


class _OverError(Exception):
    pass


class _Requests:
    def __init__(self, *requests: Any) -> None:
        self.left = list(requests)

    def get(self, timeout: float) -> Any:
        if not self.left:
            raise _OverError
        return self.left.pop()


class _Transport:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, item: Any, consumer_id: int) -> None:
        self.sent.append(item[1][0])


def test_a_batch_of_one_request_is_a_batch(tmp_path: Path) -> None:
    api: Any = _Echo(ServerOptions("base", tmp_path, batch_size=1), {})
    api.pre_setup()
    api.request_timeout = 30
    requests, transport = _Requests((0, "uid", time.monotonic(), ("score", "a body"))), _Transport()
    with pytest.raises(_OverError):
        api.loop(api, "cpu", 0, requests, transport, {}, CallbackRunner())
    assert [json.loads(answer) for answer in transport.sent if answer] == [{"result": ["score", "a body"]}]
