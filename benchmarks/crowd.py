"""A crowd of clients at one server: who is answered, who is told to come again, and how long each waits.

    python -m benchmarks.crowd --base BASE [--gguf_file FILE] [--clients 1000] [--tokens 8] [--max_queue 64]

Starts `beft_lightning serve` on this machine with the base alone, sends one request from every client at the same time,
and ends the server. Requests and server share the processors.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

#: Longest time for the server to start, and for a request, in seconds.
_START, _ANSWER = 300, 300


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers.

    Raises:
        RuntimeError: If it ends instead, or takes too long.
    """
    deadline = time.monotonic() + _START
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the server did not start; its log above says why")


async def crowd(address: str, clients: int, tokens: int) -> dict[int, list[float]]:
    """Send a request from each client at once; return the seconds until each answer, by its status."""
    body = {"model": "base", "prompt": "The film was", "max_tokens": tokens, "temperature": 0}
    seconds: dict[int, list[float]] = defaultdict(list)

    async def ask(client: httpx.AsyncClient) -> None:
        start = time.monotonic()
        answer = await client.post(f"{address}/v1/completions", json=body)
        seconds[answer.status_code].append(time.monotonic() - start)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=_ANSWER, trust_env=False) as client:
        await asyncio.gather(*(ask(client) for _ in range(clients)))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--gguf_file")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--max_queue", type=int, default=64)
    options = parser.parse_args()
    with socket.socket() as free, TemporaryDirectory() as adapters:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        given: dict[str, Any] = {"base": options.base, "gguf_file": options.gguf_file, "max_queue": options.max_queue}
        given |= {"adapters": adapters, "port": port, "accelerator": "cpu"}
        command = [sys.executable, "-m", "beft_lightning", "serve"]
        command += [part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))]
        address = f"http://127.0.0.1:{port}"
        server = subprocess.Popen(command)
        try:
            wait_for(address, server)
            asyncio.run(crowd(address, 1, options.tokens))  # warm up
            found = asyncio.run(crowd(address, options.clients, options.tokens))
            after = asyncio.run(crowd(address, 1, options.tokens))
        finally:
            server.terminate()
            server.wait(timeout=60)
    for status, seconds in sorted(found.items()):
        p50, p99, last = np.percentile(seconds, (50, 99, 100))
        print(json.dumps({"status": status, "answers": len(seconds), "p50": p50, "p99": p99, "last": last}))
    print(json.dumps({"a request afterwards": dict(after), "exit status": server.returncode}))


if __name__ == "__main__":
    main()
