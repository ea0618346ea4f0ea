"""The server as clients see it: one process of the real command for all tests of this file."""

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.data import PROMPT_TASKS
from tests.chats import save_chat_backbone
from tests.export.fits import SST2
from tests.serving.adapters import trained

pytest.importorskip("litserve", reason="needs LitServe: pip install 'beft-lightning[serve]'")
openai = pytest.importorskip("openai", reason="needs OpenAI's client: pip install openai")
httpx = pytest.importorskip("httpx", reason="comes with OpenAI's client")

KEY = "a key"
COPA = PROMPT_TASKS["copa"]


class Served:
    """A running server."""

    def __init__(self, backbone: str, adapters: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.adapters, self.log = adapters, log
        self.address = f"http://127.0.0.1:{self.port}"
        options = {"base": backbone, "adapters": adapters, "port": self.port, "accelerator": "cpu", "max_queue": 8}
        command = [sys.executable, "-m", "beft_lightning", "serve", "--max_bytes", "20000"]
        command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self.process = subprocess.Popen(
            command,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "BEFT_API_KEY": KEY},
            start_new_session=True,  # so that its processes are a group of their own
        )
        self.client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=KEY, max_retries=0, timeout=120
        )

    def ask(self, route: str, body: Any, key: str = KEY) -> tuple[int, Any]:
        """Send a body; return the status and what comes back."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{route}",
            data,
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def wait(self) -> None:
        """Wait until it is ready."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5) as response:
                    if response.status == 200:
                        return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(self.log.read_text())

    def names(self) -> list[str]:
        """The models that are listed."""
        return [model.id for model in self.client.models.list().data]

    def until(self, names: list[str]) -> None:
        """Wait until these are the models."""
        deadline = time.monotonic() + 60
        while self.names() != names:
            assert time.monotonic() < deadline, self.names()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(4096, most)), most))  # a thousand connections are files
    backbone = save_chat_backbone(folder / "base")
    adapters = folder / "adapters"
    adapters.mkdir()
    trained(backbone, COPA, "value", adapters / "one.ckpt", 1)
    trained(backbone, SST2, "value", adapters / "sst2.ckpt", 2)
    (adapters / "damaged.ckpt").write_bytes(b"nothing")
    server = Served(backbone, adapters, folder / "log.txt")
    try:
        server.wait()
        yield server
    finally:
        # Killed, it would leave its own processes behind. Tests that share a run may not have ended it.
        server.process.terminate()
        server.process.wait(timeout=120)


def test_openais_client_completes_chats_and_streams(served: Served) -> None:
    options: Any = {"model": "one", "max_tokens": 6, "temperature": 0}
    whole = served.client.completions.create(prompt="the film was", **options)
    assert whole.choices[0].finish_reason in ("length", "stop")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    pieces = list(served.client.completions.create(prompt="the film was", stream=True, **options))
    assert len(pieces) > 2
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    messages: Any = [{"role": "user", "content": "good film"}]
    chat = served.client.chat.completions.create(messages=messages, **options)
    assert chat.choices[0].message.role == "assistant"
    streamed = list(
        served.client.chat.completions.create(
            messages=messages, stream=True, stream_options={"include_usage": True}, **options
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices) == chat.choices[0].message.content
    assert streamed[-1].usage.completion_tokens == chat.usage.completion_tokens
    base = served.client.completions.create(prompt="the film was", **{**options, "model": "base"})
    assert base.choices[0].text != whole.choices[0].text


def test_labels_and_scores(served: Served) -> None:
    status, answer = served.ask("/v1/classify", {"model": "sst2", "input": ["a good film", "dull"]})
    assert status == 200
    assert [sorted(row["probabilities"]) for row in answer["data"]] == [sorted(SST2.labels)] * 2
    status, answer = served.ask("/v1/score", {"model": "one", "prompt": "the film", "options": [" was", " was good"]})
    assert status == 200
    assert [row["tokens"] for row in answer["data"]] == [2, 4]


def test_what_is_not_served_is_listed_and_adapters_come_and_go(served: Served) -> None:
    assert served.names() == ["base", "one", "sst2"]
    broken = served.client.models.list().model_extra["broken"]
    assert [entry["id"] for entry in broken] == ["damaged"]
    assert "not a readable checkpoint" in broken[0]["reason"]
    shutil.copy(served.adapters / "one.ckpt", served.adapters / "two.ckpt")
    served.until(["base", "one", "sst2", "two"])
    assert served.client.completions.create(model="two", prompt="the film", max_tokens=1).choices
    (served.adapters / "two.ckpt").unlink()
    served.until(["base", "one", "sst2"])
    with pytest.raises(openai.NotFoundError, match="no adapter 'two' is served; there are: base, one, sst2"):
        served.client.completions.create(model="two", prompt="the film", max_tokens=1)


def test_wrong_requests_get_a_status_and_a_reason(served: Served) -> None:
    text = {"model": "one", "prompt": "the film", "max_tokens": 1}
    for status, message, body in (
        (400, "the body is no JSON", b"{no"),
        (400, "the body is no JSON", b"\xff\xfe"),
        (400, "Input should be", [1, 2]),
        (400, "model: Field required", {"prompt": "a"}),
        (400, "n: Input should be 1", {**text, "n": 2}),
        (400, "tools: Extra inputs", {**text, "tools": []}),
        (400, "exceed the model's 64 positions", {**text, "max_tokens": 64}),
    ):
        found, answer = served.ask("/v1/completions", body)
        assert found == status
        assert message in answer["error"]["message"]
    for status, message, asked in (
        (413, "Payload too large", served.ask("/v1/completions", {**text, "prompt": "a" * 30_000})),
        (401, "Give the server's key", served.ask("/v1/completions", text, key="another")),
        (401, "Give the server's key", served.ask("/v1/completions", text, key="")),
        (404, "Not Found", served.ask("/v1/nothing", text)),
    ):
        assert asked[0] == status
        assert message in asked[1]["error"]["message"]
    with urllib.request.urlopen(f"{served.address}/", timeout=60) as page:  # asks for the key
        assert page.headers.get_content_type() == "text/html"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=served.client.base_url, api_key="another", max_retries=0).models.list()


def test_of_a_thousand_clients_at_once_those_beyond_the_queue_are_told_to_come_again(served: Served) -> None:
    body = {"model": "one", "prompt": "the film", "max_tokens": 50}

    async def crowd() -> list[Any]:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(limits=limits, headers=headers, timeout=300, trust_env=False) as client:
            asked = (client.post(f"{served.address}/v1/completions", json=body) for _ in range(1000))
            return await asyncio.gather(*asked)

    found = Counter((answer.status_code, answer.headers.get("Retry-After")) for answer in asyncio.run(crowd()))
    assert found.keys() == {(200, None), (503, "1")}
    assert found.total() == 1000
    assert found[200, None] >= 8  # what the queue holds
    assert served.ask("/v1/completions", {"model": "one", "prompt": "the film", "max_tokens": 1})[0] == 200


def test_a_folder_that_is_gone_leaves_its_adapters_and_the_end_waits_for_answers(served: Served) -> None:
    served.adapters.rename(served.adapters.parent / "gone")
    deadline = time.monotonic() + 60
    while served.client.models.list().model_extra["problem"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stream = served.client.completions.create(model="one", prompt="the film", max_tokens=50, temperature=0, stream=True)
    first = next(stream)
    assert first.choices[0].finish_reason is None
    os.killpg(served.process.pid, signal.SIGTERM)  # as a service manager does, to every process
    rest = list(stream)
    assert rest[-1].choices[0].finish_reason in ("length", "stop")
    served.process.send_signal(signal.SIGTERM)  # once more: it ends already
    assert served.process.wait(timeout=120) == 0
    assert "Traceback" not in served.log.read_text()
