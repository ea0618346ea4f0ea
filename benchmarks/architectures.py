"""Prove for every model type of transformers what is found, scored, trained and exported; write the table of the docs.

python -m benchmarks.architectures --out docs/architectures.md            # all types, about half an hour
python -m benchmarks.architectures --types vit clip whisper               # some, printed
"""

import argparse
import gc
import json
import signal
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from beft_lightning.bias import add_missing_biases, find_bias_terms, freeze_except, magnitude_score
from beft_lightning.bias.composite import found_by_model
from beft_lightning.bias.discovery import Run, run_twin
from beft_lightning.bias.found import note_found
from beft_lightning.bias.lookup import architectures_of
from beft_lightning.bias.owners import bias_owners
from beft_lightning.bias.twin import first_line, twins
from beft_lightning.errors import BeftError
from beft_lightning.export.merging import make_plain
from benchmarks.architecture_table import Row, page
from benchmarks.observed_attention import Observer, first_changed

_ATTENTION = ("query", "key", "value", "cross_query", "cross_key", "cross_value")
#: Most CPU time for a type, however busy the machine is.
_SECONDS = 60


def prove(model_type: str) -> Row:
    """Prove on a small twin of a type's default model what works with it; on several where it is watched in parts."""
    row = Row(model_type)
    try:
        model_class, config = default_model(model_type)
    except Exception as error:  # Defaults that cannot be built fail in any way.
        row.reason = f"the default model cannot be built: {first_line(error)}"
        return row
    try:
        with torch.device("meta"):
            model = model_class(config)
        names = list(found_by_model(model))
        watched = [run_twin_of(model.get_submodule(name)) for name in names]
        found = [tuple(found_terms(twin, runs)) for twin, runs in watched]
        row.found = tuple(dict.fromkeys(term for terms in found for term in terms))
        row.scored = all(scores_are_finite(twin, runs) for twin, runs in watched)
        row.trained = all(nothing_else_moves(*one, terms) for one, terms in zip(watched, found, strict=True))
        row.parts = tuple(filter(None, names))
        row.exported = exports_state(model) if row.parts else exports(*watched[0])
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


def run_twin_of(model: Any) -> tuple[PreTrainedModel, list[Run]]:
    """Return a twin of a model, with the biases of attention that it lacks, and its runs."""
    twin, runs = run_twin(type(model), model.config)
    add_missing_biases(twin, find_bias_terms_of(twin))
    return twin, runs


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


def weighted_output(runs: list[Run]) -> Tensor:
    """Return the mean of all outputs by fixed random weights; a norm at the end keeps that of their squares."""
    weights = torch.Generator().manual_seed(0)
    return sum(
        ((one.float() * torch.randn(one.shape, generator=weights)).mean() for one in outputs(runs)), torch.zeros(())
    )


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
        weighted_output(runs).backward()
        optimizer.step()


def exports(twin: PreTrainedModel, runs: list[Run]) -> bool:
    """Return whether transformers reads the trained model from a folder, and it computes the same."""
    before = [tensor.detach() for tensor in outputs(runs)]
    loaded = reloaded(twin)
    if loaded is None:
        return False
    twin.load_state_dict(loaded.state_dict())  # The runs are of this one.
    after = outputs(runs)
    return all(torch.allclose(one, other, rtol=1e-3, atol=1e-5) for one, other in zip(before, after, strict=True))


def reloaded(twin: PreTrainedModel) -> PreTrainedModel | None:
    """Return a model as transformers reads it from a folder; None if that lacks something. Its biases become whole."""
    try:
        make_plain(twin)
    except BeftError:
        return None
    with TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        model_class: Any = type(twin)
        loaded, problems = model_class.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    return None if problems["missing_keys"] or problems["unexpected_keys"] else loaded


def exports_state(model: PreTrainedModel) -> bool:
    """Return whether transformers reads all values of a model with new biases from a folder.

    Args:
        model: A model whose terms are found; a small twin of it is written, and not run.
    """
    problems: list[str] = []
    twin = next(twins(type(model), model.config, problems), None)
    if twin is None:
        raise BeftError("; ".join(problems))
    note_found(twin, architectures_of(model))
    add_missing_biases(twin, terms := find_bias_terms_of(twin))
    with torch.no_grad():
        for bias in (bias for term in terms for bias in find_bias_terms(twin)[term].values()):
            bias.add_(torch.randn(bias.shape))
    loaded = reloaded(twin)
    return loaded is not None and all(
        torch.equal(value, loaded.state_dict()[name]) for name, value in twin.state_dict().items()
    )


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
            row = Row(model_type, reason=f"not done within {_SECONDS} seconds of CPU time")
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
