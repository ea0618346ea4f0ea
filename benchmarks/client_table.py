"""Which programs compute what a fit has trained: the largest difference of logits, by architecture.

Usage: python -m benchmarks.client_table [--packages FOLDER] [--types llama ...]

It needs `pip install --target FOLDER --no-deps ctranslate2 onnxruntime onnxscript onnx onnx-ir ml_dtypes flatbuffers`,
so that the packages of the environment stay as they are.
Tiny models with random weights get random value biases, and are exported; each program loads the export, and its logits
are compared with those of the fitted model. A difference of about that to the base says that the biases were dropped.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from torch import Tensor, nn

from beft_lightning import LanguageTaskModule
from beft_lightning.export import export
from tests.export.fits import COPA, SST2, fitted
from tests.gguf_files import IDS, VOCABULARY, LlamaCpp, write_gguf
from tests.tiny import save_backbone

CAUSAL = ("gpt2", "opt", "llama", "qwen2", "mistral", "gemma", "phi")
ENCODERS = ("bert", "roberta")
#: Loads the export in a folder, and returns the logits of IDS, shape ``(tokens, vocabulary)`` or ``(labels,)``.
Client = Callable[[Path, Any], Tensor]


def with_transformers(folder: Path, auto_class: Any) -> Tensor:
    return _logits(auto_class.from_pretrained(folder / "hf"))


def with_onnx_runtime(folder: Path, auto_class: Any) -> Tensor:
    onnxruntime = import_module("onnxruntime")

    class Logits(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor) -> Tensor:
            # Without a mask, some of transformers' functions for it cannot be traced.
            options = {"use_cache": False} if auto_class is transformers.AutoModelForCausalLM else {}
            logits: Tensor = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), **options).logits
            return logits

    model = Logits(auto_class.from_pretrained(folder / "hf", attn_implementation="eager").eval())
    path = str(folder / "model.onnx")
    torch.onnx.export(model, (torch.tensor([IDS]),), path, dynamo=True, verbose=False, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: np.array([IDS], dtype=np.int64)})
    return torch.from_numpy(logits)[0]


def with_ctranslate2(folder: Path, auto_class: Any) -> Tensor:
    ctranslate2 = import_module("ctranslate2")

    out = str(folder / "ctranslate2")
    ctranslate2.converters.TransformersConverter(str(folder / "hf")).convert(out, force=True)
    if auto_class is transformers.AutoModelForCausalLM:
        generator = ctranslate2.Generator(out, device="cpu", compute_type="float32")
        return torch.from_numpy(np.array(generator.forward_batch([IDS], return_log_probs=False)))[0]
    encoder = ctranslate2.Encoder(out, device="cpu", compute_type="float32")
    hidden = torch.from_numpy(np.array(encoder.forward_batch([IDS]).last_hidden_state))
    model = auto_class.from_pretrained(folder / "hf").eval()  # CTranslate2 has no heads
    with torch.no_grad():
        if hasattr(model.base_model, "pooler") and model.base_model.pooler is not None:
            logits: Tensor = model.classifier(model.base_model.pooler(hidden))
        else:
            logits = model.classifier(hidden)
    return logits[0]


def with_llama_cpp(folder: Path, auto_class: Any) -> Tensor:
    if auto_class is not transformers.AutoModelForCausalLM:
        raise ValueError("it has no heads of classifiers, and the export refuses them")
    base = auto_class.from_pretrained(folder / "base").eval()
    if base.config.model_type == "opt":
        raise ValueError("it has no such architecture")
    write_gguf(base, folder / "base.gguf")
    export(folder / "a.ckpt", folder / "out.gguf", "gguf", base_gguf=folder / "base.gguf")
    return LlamaCpp(folder / "out.gguf").log_probabilities(IDS, VOCABULARY)


CLIENTS: dict[str, Client] = {
    "transformers": with_transformers,
    "llama.cpp": with_llama_cpp,
    "ONNX Runtime": with_onnx_runtime,
    "CTranslate2": with_ctranslate2,
}


def save_tokenizer(folder: Path) -> None:
    """Save one with as many words as the models have: CTranslate2 counts them."""
    words = tokenizers.models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t1")
    special = {"pad_token": "t0", "unk_token": "t1", "bos_token": "t2", "eos_token": "t3"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(words), **special).save_pretrained(
        folder
    )


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    logits: Tensor = model.eval()(torch.tensor([IDS])).logits[0]
    return logits


def difference(found: Tensor, expected: Tensor) -> float:
    """Of logits, or of log-probabilities of the last token where only those are known."""
    if found.shape != expected.shape:
        expected = expected[-1].log_softmax(-1)
    known = ~found.isnan()
    return (found - expected)[known].abs().max().item()


def cell(client: Client, folder: Path, auto_class: Any, expected: Tensor, base: Tensor) -> str:
    try:
        found = client(folder, auto_class)
    except (Exception, SystemExit) as error:
        return f"no: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:150]}"
    tuned, plain = difference(found, expected), difference(found, base)
    return f"{tuned:.0e}" if tuned < plain / 10 else f"LOADS WITHOUT (tuned {tuned:.2g}, base {plain:.2g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", default=".", help="folder with the packages")
    parser.add_argument("--types", nargs="+", default=[*ENCODERS, *CAUSAL])
    arguments = parser.parse_args()
    sys.path.append(arguments.packages)
    warnings.filterwarnings("ignore")
    print(f"| | {' | '.join(CLIENTS)} |", "|---" * (len(CLIENTS) + 1) + "|", sep="\n")
    for model_type in arguments.types:
        causal = model_type in CAUSAL
        auto_class = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForSequenceClassification
        with TemporaryDirectory() as name:
            folder = Path(name)
            options: dict[str, Any] = {"vocab_size": VOCABULARY} | ({"biases": False} if model_type == "llama" else {})
            save_backbone(folder / "base", model_type, causal=causal, **options)
            save_tokenizer(folder / "base")
            module = LanguageTaskModule(str(folder / "base"), COPA if causal else SST2, tune="value")
            module.configure_model()
            base = _logits(module.model)
            fitted(module, folder / "a.ckpt")
            expected = _logits(module.model)
            try:
                export(folder / "a.ckpt", folder / "hf", "hf")
            except Exception as error:
                print(f"{model_type}: export --format hf: {error}", file=sys.stderr)
            cells = [
                cell(client, folder, auto_class, expected, base)
                if (folder / "hf").is_dir() or client is with_llama_cpp
                else "`hf` refuses"
                for client in CLIENTS.values()
            ]
            print(f"| {model_type} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
