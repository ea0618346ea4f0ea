"""A base and a folder of adapters behind LitServe."""

import hmac
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any, Literal

import starlette.exceptions
from fastapi import HTTPException, Request
from litserve import LitAPI, LitServer
from litserve.loops import BatchedStreamingLoop

from beft_lightning.serving.engine import Engine
from beft_lightning.serving.folder import AdapterFolder
from beft_lightning.serving.page import add_page
from beft_lightning.serving.parent import end_with_parent
from beft_lightning.serving.routes import ACTIVE, ADAPTERS, DRAINING, BankSpec, http_error

#: Longest time for requests to end when the server has been asked to, in seconds.
_GRACE = 30.0


Accelerator = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class ServerOptions:
    """Options of the server.

    Args:
        base: The backbone.
        gguf_file: Name of the GGUF file in it that holds the weights.
        adapters: Folder of the adapters.
        dtype: Precision of the base's weights.
        accelerator: Where to compute: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        batch_size: Most requests in a batch.
        batch_wait: Longest time that a request waits for others to share its batch, in seconds.
        max_queue: Most requests in the server at a time.
        max_tokens: Most tokens that a request may ask for.
        max_bytes: Largest body of a request.
        rescan: Time between two looks at the folder, in seconds.
        api_key: What clients have to send as bearer token, if anything.
    """

    base: str
    adapters: Path
    gguf_file: str | None = None
    dtype: str = "float32"
    accelerator: Accelerator = "auto"
    batch_size: int = 32
    batch_wait: float = 0.01
    max_queue: int = 256
    max_tokens: int = 1024
    max_bytes: int = 1 << 20
    rescan: float = 2.0
    api_key: str | None = None


class BankAPI(LitAPI):
    """The worker: an engine, and a thread that keeps its adapters those of the folder.

    Args:
        options: The server's options.
        state: What the processes of the server share.
    """

    def __init__(self, options: ServerOptions, state: MutableMapping[str, Any]) -> None:
        super().__init__(
            max_batch_size=options.batch_size,
            batch_timeout=options.batch_wait,
            loop=BatchedStreamingLoop(),  # the default for a batch of one passes a request, not a list
            spec=BankSpec(state, options.max_queue),
        )
        self._options, self._state = options, state

    def setup(self, device: str) -> None:
        """Load the base, read the folder, and go on looking at it."""
        logging.basicConfig(level=logging.INFO)
        os.setpgrp()  # Ctrl-C and service managers signal every process of a group; the main one ends this
        end_with_parent()
        options = self._options
        self._engine = Engine(options.base, options.gguf_file, options.dtype, device, options.max_tokens)
        self._folder = AdapterFolder(options.adapters, self._engine.add, self._engine.remove)
        # Adapters change between two batches.
        self._turn = threading.Lock()
        self._look()
        threading.Thread(target=self._keep_looking, daemon=True).start()

    def _look(self) -> None:
        with self._turn:
            changed = self._folder.scan()
        if changed:
            self._state[ADAPTERS] = {
                "served": self._folder.served,
                "broken": dict(self._folder.broken),
                "problem": self._folder.problem,
                "time": int(time.time()),
            }

    def _keep_looking(self) -> None:
        while True:
            time.sleep(self._options.rescan)
            try:
                self._look()
            except (EOFError, OSError):  # the process that holds the state has ended, and so does this one
                return

    def predict(self, x: Sequence[tuple[str, Any]], **kwargs: Any) -> Iterator[list[Any]]:
        """Yield the answers of a batch of routes and bodies, a part of each at a time."""
        with self._turn, closing(self._engine.answers(x)) as answers:
            yield from answers

    def authorize(self, request: Request) -> None:
        """Check the key of a request; LitServe asks before every route. ``/health`` is open."""
        key = self._options.api_key
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = scheme.lower() == "bearer" and hmac.compare_digest(given.encode("latin-1"), (key or "").encode())
        if key and request.url.path != "/health" and not right:
            raise HTTPException(401, "Give the server's key: Authorization: Bearer KEY.")


class BankServer:
    """The server.

    Args:
        options: Its options.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._process, self._signals = os.getpid(), 0
        os.register_at_fork(after_in_child=end_with_parent)  # that of the routes, and LitServe's own
        self._manager = SyncManager()
        self._manager.start(signal.signal, (signal.SIGTERM, signal.SIG_IGN))  # it is needed until all requests end
        self.state = self._manager.dict()
        nothing: dict[str, Any] = {"served": [], "broken": {}, "problem": None, "time": 0}
        self.state.update({ADAPTERS: nothing, ACTIVE: 0, DRAINING: False})
        self.server = LitServer(
            BankAPI(options, self.state),
            accelerator=options.accelerator,
            devices=1,
            max_payload_size=options.max_bytes,
        )
        add_page(self.server.app)
        self.server.app.add_exception_handler(starlette.exceptions.HTTPException, http_error)

    def run(self, host: str, port: int) -> None:
        """Serve until a signal asks to end; requests that have begun are answered first."""
        before = signal.signal(signal.SIGTERM, self._end), signal.signal(signal.SIGINT, self._end)
        try:
            self.server.run(host=host, port=port, num_api_servers=1, generate_client_file=False, access_log=False)
        except KeyboardInterrupt:  # LitServe leaves it alone while it starts.
            for worker in getattr(self.server, "inference_workers", ()):
                worker.terminate()
        finally:
            self._manager.shutdown()
            signal.signal(signal.SIGTERM, before[0])
            signal.signal(signal.SIGINT, before[1])

    def _end(self, signum: int, frame: Any) -> None:
        """Refuse new requests, wait for the others, and let LitServe end; a second signal ends the wait."""
        if os.getpid() != self._process:  # the process of the routes is a fork, and passes on the signal that ended it
            return
        self._signals += 1
        if self._signals > 1:
            return
        self.state[DRAINING] = True
        deadline = time.monotonic() + _GRACE
        while self.state[ACTIVE] and self._signals == 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        raise KeyboardInterrupt
