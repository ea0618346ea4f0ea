"""The command ``serve``: a base and a folder of adapters over HTTP."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from beft_lightning.errors import BeftError

#: Environment variable with the key that clients have to send; command lines are seen by other users.
KEY_VARIABLE = "BEFT_API_KEY"


def serve(
    base: str,
    adapters: str,
    *,
    gguf_file: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    dtype: str = "float32",
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    batch_size: int = 32,
    max_queue: int = 256,
    max_tokens: int = 1024,
    max_bytes: int = 1 << 20,
) -> None:
    """Serve until a signal asks to end.

    Args:
        base: The backbone.
        adapters: Folder of the adapters.
        gguf_file: Name of the GGUF file in the base that holds the weights.
        host: Address to listen at.
        port: Port to listen at.
        dtype: Precision of the base's weights.
        accelerator: Where to compute: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        batch_size: Most requests in a batch.
        max_queue: Most requests in the server at a time.
        max_tokens: Most tokens that a request may ask for.
        max_bytes: Largest body of a request.

    Raises:
        BeftError: If LitServe is not installed, or an option is not as it has to be.
    """
    if find_spec("litserve") is None:
        raise BeftError("serve needs LitServe: pip install 'beft-lightning[serve]'.")
    if not Path(adapters).is_dir():
        raise BeftError(f"--adapters {adapters}: no such folder.")
    if not 1024 <= port <= 65535:
        raise BeftError(f"--port {port}: give a port from 1024 to 65535.")
    for name, value in (("batch_size", batch_size), ("max_queue", max_queue), ("max_tokens", max_tokens)):
        if value < 1:
            raise BeftError(f"--{name} {value}: must be at least 1.")
    from beft_lightning.models import check_dtype, load_tokenizer
    from beft_lightning.serving.server import BankServer, ServerOptions

    check_dtype(dtype)
    load_tokenizer(base, gguf_file)  # a wrong base is told before processes are started
    options = ServerOptions(
        base=base,
        adapters=Path(adapters),
        gguf_file=gguf_file,
        dtype=dtype,
        accelerator=accelerator,
        batch_size=batch_size,
        max_queue=max_queue,
        max_tokens=max_tokens,
        max_bytes=max_bytes,
        api_key=os.environ.get(KEY_VARIABLE) or None,
    )
    try:
        BankServer(options).run(host, port)
    except RuntimeError as error:
        raise BeftError(f"the server could not start ({error}); the log above says why.") from error
