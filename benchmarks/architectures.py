"""Prove for every model type of transformers what is found, scored, trained and exported; write the table of the docs.

python -m benchmarks.architectures --out docs/architectures.md            # all types, about half an hour
python -m benchmarks.architectures --types vit clip whisper               # some, printed
"""

import argparse
import gc
import json
import signal
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from beft_lightning.bias import add_missing_biases, find_bias_terms, freeze_except, magnitude_score
from beft_lightning.bias.discovery import Run, run_twin
from beft_lightning.bias.owners import bias_owners
from beft_lightning.bias.twin import first_line
from beft_lightning.errors import BeftError
from beft_lightning.export.merging import make_plain
from benchmarks.observed_attention import Observer, first_changed

_ATTENTION = ("query", "key", "value", "cross_query", "cross_key", "cross_value")
#: Most CPU time for a type, however busy the machine is.
_SECONDS = 60


@dataclass
class Row:
    """What works with a model type.

    Args:
        model_type: Its name in transformers.
        found: Terms whose biases change that input of attention alone.
        scored: Whether each of them gets a finite score, and all but inert ones a positive one.
        trained: Whether ten steps on each term change it and nothing else.
        exported: Whether transformers reads the model with trained values from a folder, and computes the same.
        reason: Why something does not work.
        observed: Whether this is the present proof; the one before took the watch's word for what attention takes,
            trained the values alone, and exported a configuration and a state.
    """

    model_type: str
    found: tuple[str, ...] = ()
    scored: bool = False
    trained: bool = False
    exported: bool = False
    reason: str = ""
    observed: bool = False


def prove(model_type: str) -> Row:
    """Prove on a small twin of a type's default model what works with it."""
    row = Row(model_type, observed=True)
    try:
        model_class, config = default_model(model_type)
    except Exception as error:  # Defaults that cannot be built fail in any way.
        row.reason = f"the default model cannot be built: {first_line(error)}"
        return row
    try:
        twin, runs = run_twin(model_class, config)
        add_missing_biases(twin, find_bias_terms_of(twin))
        row.found = tuple(found_terms(twin, runs))
        row.scored = scores_are_finite(twin, runs)
        row.trained = nothing_else_moves(twin, runs, row.found)
        row.exported = exports(twin, runs)
    except TimeoutError:
        raise
    except Exception as error:  # The reason is the result.
        row.reason = first_line(error)
    return row


def default_model(model_type: str) -> tuple[type[PreTrainedModel], Any]:
    """Return the base model's class of a type, and its default configuration, from which it can be built."""
    config = AutoConfig.for_model(model_type)
    model_class: Any = MODEL_MAPPING[type(config)]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    with torch.device("meta"):
        model_class(config)
    return model_class, config


def find_bias_terms_of(twin: PreTrainedModel) -> list[str]:
    """Return the terms of attention that a model has or can be given."""
    return [term for term in bias_owners(twin) if term in _ATTENTION]


def found_terms(twin: PreTrainedModel, runs: list[Run]) -> Iterator[str]:
    """Yield the terms whose vectors, changed in the first or last layer, change one input of the next attention alone.

    Raises:
        AssertionError: If a vector changes something else first, or nothing.
    """
    terms = find_bias_terms(twin)
    before = attention_inputs(runs)
    for term in (term for term in terms if term in _ATTENTION):
        for index in sorted({min(terms[term]), max(terms[term])}):
            bias = terms[term][index]
            kept = bias.detach().clone()
            with torch.no_grad():
                bias.add_(torch.randn(bias.shape))
            changed = first_changed(before, attention_inputs(runs))
            with torch.no_grad():
                bias.copy_(kept)
            assert changed == {term.removeprefix("cross_")}, f"{term}.{index} changes {sorted(changed)} of an attention"
        yield term


@torch.no_grad()
def attention_inputs(runs: list[Run]) -> list[dict[str, Tensor]]:
    """Return what each attention takes, in the order of the forward passes."""
    taken = []
    for run in runs:
        torch.manual_seed(0)
        with Observer() as observer:
            run.forward()
        taken += observer.taken
    return taken


def outputs(runs: list[Run]) -> list[Tensor]:
    """Return the outputs of all runs that depend on parameters."""
    given: list[Tensor] = []
    for run in runs:
        torch.manual_seed(0)
        given += _tensors(run.forward())
    return given


def output_sum(runs: list[Run]) -> Tensor:
    """Return a loss over all outputs."""
    return sum((one.float().pow(2).mean() for one in outputs(runs)), torch.zeros(()))


def _tensors(output: Any) -> list[Tensor]:
    values = output.to_tuple() if hasattr(output, "to_tuple") else output
    if isinstance(values, Tensor):
        return [values] if values.requires_grad else []
    return [tensor for value in values for tensor in _tensors(value)] if isinstance(values, list | tuple) else []


def scores_are_finite(twin: PreTrainedModel, runs: list[Run]) -> bool:
    """Return whether query and value move in a step over all biases of attention, by a finite magnitude."""
    terms = {term: layers for term, layers in find_bias_terms(twin).items() if term in _ATTENTION}
    freeze_except(twin, terms)
    terms = {term: find_bias_terms(twin)[term] for term in terms}
    before = {term: [bias.detach().clone() for bias in layers.values()] for term, layers in terms.items()}
    _train(twin, runs, steps=1)
    scores = {
        term: [magnitude_score(old, new).item() for old, new in zip(before[term], terms[term].values(), strict=True)]
        for term in terms
    }
    with torch.no_grad():
        for term, layers in terms.items():
            for old, bias in zip(before[term], layers.values(), strict=True):
                bias.copy_(old)
    finite = all(score == score for values in scores.values() for score in values)
    return finite and all(max(values) > 0 for term, values in scores.items() if not term.endswith("key"))


def nothing_else_moves(twin: PreTrainedModel, runs: list[Run], terms: Iterable[str]) -> bool:
    """Return whether ten steps on each term change it, unless it is inert, and no other parameter.

    The values stay trained; the other terms are as before.
    """
    for term in sorted(terms, key=lambda term: term.endswith("value")):
        before = {name: parameter.detach().clone() for name, parameter in twin.named_parameters()}
        trained = set(freeze_except(twin, [term]))
        _train(twin, runs, steps=10)
        moved = {name for name, parameter in twin.named_parameters() if not torch.equal(parameter, before[name])}
        if not moved <= trained or not (moved or term.endswith("key")):
            return False
        if not term.endswith("value"):
            twin.load_state_dict(before, strict=False)
    return True


def _train(twin: nn.Module, runs: list[Run], *, steps: int) -> None:
    optimizer = torch.optim.AdamW([p for p in twin.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        output_sum(runs).backward()
        optimizer.step()


def exports(twin: PreTrainedModel, runs: list[Run]) -> bool:
    """Return whether transformers reads the trained model from a folder, and it computes the same."""
    before = [tensor.detach() for tensor in outputs(runs)]
    try:
        make_plain(twin)
    except BeftError:
        return False
    with TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        model_class: Any = type(twin)
        loaded, problems = model_class.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    if problems["missing_keys"] or problems["unexpected_keys"]:
        return False
    twin.load_state_dict(loaded.state_dict())  # The runs are of this one.
    after = outputs(runs)
    return all(torch.allclose(one, other, rtol=1e-3, atol=1e-5) for one, other in zip(before, after, strict=True))


def page(rows: list[Row]) -> str:
    """Return the page of the docs about the rows."""
    rows = sorted(rows, key=lambda row: row.model_type)
    built = [row for row in rows if "cannot be built" not in row.reason]
    none = [row for row in built if "no attention was seen" in row.reason]
    attended = [row for row in built if row not in none]
    found = [row for row in attended if row.found]
    counts = {
        "found": len(found),
        "scored": sum(row.scored for row in found),
        "trained": sum(row.trained for row in found),
        "exported": sum(row.exported for row in found),
    }
    lines = [
        *_HEADER,
        f"Of the {len(MODEL_MAPPING_NAMES)} types, {len(rows)} were tried so far. {len(built)} of these can be "
        f"built from their default configuration, and in "
        f"{len(none)} of these no attention was seen. Of the other {len(attended)}, the terms are "
        f"{', '.join(f'**{name}** in {count}' for name, count in counts.items())}.",
        "",
        f"{sum(row.observed for row in rows)} of the {len(rows)} were tried as said above. The others wait for it:",
        "their rows are of an earlier proof, which took the watch's own record of what attention takes, trained the",
        "value biases alone, and rebuilt the model from its configuration and state in memory.",
        "",
        "| type | found | scored | trained | exported |",
        "|---|---|---|---|---|",
        *(
            f"| `{row.model_type}` | {', '.join(row.found)} | {_mark(row.scored)} | {_mark(row.trained)} | "
            f"{_mark(row.exported)} |"
            for row in found
        ),
        "",
        "## Not found",
        "",
        "| type | reason |",
        "|---|---|",
        *(f"| `{row.model_type}` | {_short(row.reason)} |" for row in attended if not row.found),
        "",
        "No attention was seen in " + ", ".join(f"`{row.model_type}`" for row in none) + ".",
        "",
        "The default configuration builds no model of "
        + ", ".join(f"`{row.model_type}`" for row in rows if row not in built)
        + ".",
        "",
    ]
    return "\n".join(lines)


_HEADER = (
    "# Architectures",
    "",
    "Which types of transformers work, proved on a small twin of each type's default model by",
    "`python -m benchmarks.architectures --rows rows.jsonl`, then the same with `--out docs/architectures.md`.",
    "",
    "- **found**: each of these biases, changed in the first or last layer, changes that input of the next attention,",
    "  and no other. This is observed where attention is computed, without a look at layers, names or gradients.",
    "  Types whose layers have names that speak against what was seen count as not found.",
    "- **scored**: all of them get finite scores, and all but key biases, which may be inert, positive ones.",
    "- **trained**: ten steps on each of these terms change it, unless it is an inert key, and no other parameter.",
    "- **exported**: transformers reads the model with trained value biases from a folder, and computes the same.",
    "  Where a bias was added that the configuration has no place for, the format `peft` remains.",
    "",
)


def _mark(works: bool) -> str:
    return "yes" if works else "no"


def _short(reason: str) -> str:
    """Return the part of a reason that says what went wrong."""
    _, marker, rest = reason.partition("could be run to watch its attention (")
    short = rest.partition("). Run it yourself")[0] if marker else reason
    short = short.partition("could not be found for certain: ")[2] or short
    short = short.split("; ")[0].replace("|", "/").replace("<", "(").replace(">", ")")
    return textwrap.shorten(short, 110, placeholder=" ...") or "no inputs are known"


def main() -> None:
    """Prove the types that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--types", nargs="*", default=list(MODEL_MAPPING_NAMES))
    parser.add_argument("--out", type=Path, help="write the table of the docs there, of the rows in --rows")
    parser.add_argument("--rows", type=Path, help="a file of JSON lines: rows in it are kept, new ones appended")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    known = {}
    if arguments.rows and arguments.rows.exists():
        known = {(row := json.loads(line))["model_type"]: row for line in arguments.rows.read_text().splitlines()}
    if arguments.out:
        arguments.out.write_text(page([Row(**row) for row in known.values()]))
        return
    signal.signal(signal.SIGPROF, _too_slow)
    for model_type in arguments.types:
        if model_type in known:
            continue
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        try:
            row = prove(model_type)
        except TimeoutError:
            row = Row(model_type, reason=f"not done within {_SECONDS} seconds of CPU time", observed=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.collect()
        print(json.dumps(asdict(row)), flush=True)
        if arguments.rows:
            with arguments.rows.open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")


def _too_slow(*_: Any) -> None:
    raise TimeoutError


if __name__ == "__main__":
    main()
