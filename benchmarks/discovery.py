"""Seconds and memory that finding bias terms takes on a model of OPT-6.7B's shape.

python -m benchmarks.discovery
"""

import resource
import time

import torch
from transformers import OPTConfig, OPTForCausalLM

from beft_lightning.bias.discovery import architectures_of_twin


def main() -> None:
    """Find the terms with a small twin, although the table knows the type. Memory is the growth of the peak (Linux)."""
    width = 4096
    config = OPTConfig(
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_hidden_layers=32,
        num_attention_heads=32,
    )
    with torch.device("meta"):
        model = OPTForCausalLM(config).bfloat16()
    before, wall, processor = _peak(), time.perf_counter(), time.process_time()
    (found,) = architectures_of_twin(model)
    seconds = f"{time.perf_counter() - wall:.2f} s, {time.process_time() - processor:.2f} s on the processor"
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters: {seconds}, {_peak() - before:.2f} GiB more")
    print(found)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
