"""Predictions of new inputs with the adapters of a bank, by the task that each was trained on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from transformers import PreTrainedTokenizerBase

from beft_lightning.data.batching import batches_of_like_length
from beft_lightning.data.packed_options import EncodedOptions, encode_options, pack_options
from beft_lightning.data.preprocessors import PREPROCESSORS, EncodingOptions, Preprocessor
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError
from beft_lightning.models import usable_positions
from beft_lightning.predictor import Input, input_row
from beft_lightning.serving.bank import AdapterBank
from beft_lightning.tasks.objectives import Objective, make_objective
from beft_lightning.tasks.objectives.classification import ClassificationObjective
from beft_lightning.tasks.objectives.objective import labelled_rows
from beft_lightning.tasks.option_scores import (
    needs_separate_rows,
    option_log_probabilities,
    option_scores,
    takes_packed_rows,
)

#: Kinds of task whose examples share batches, whatever the adapter.
TEXT_KINDS = ("classification", "regression", "multi_label")
CLASSIFIED = (*TEXT_KINDS, "choice")
#: Most tokens in a pass over options, unless one alone has more: the mask of packed rows is as large as its square.
MOST_TOKENS = 4096
#: Most options of an input: others wait while they are encoded.
MOST_OPTIONS = 256


#: The place of a request, the name of its adapter, and some of its options behind its prompt.
_Part = tuple[int, str | None, EncodedOptions]


class BankPredictor:
    """Predicts for rows of several adapters at once.

    Args:
        bank: The adapters.
        tokenizer: The tokenizer of the base.
        batch_size: Most rows in a batch.
    """

    def __init__(self, bank: AdapterBank, tokenizer: PreTrainedTokenizerBase, batch_size: int = 32) -> None:
        self.bank = bank
        self.tokenizer = tokenizer
        self._batch_size = batch_size

    def encode(self, adapter: str, inputs: Sequence[Input]) -> list[dict[str, Any]]:
        """Encode inputs as the adapter's task does.

        Args:
            adapter: Its name.
            inputs: Texts, or rows with the columns of the task.

        Returns:
            For each example its features, with the adapter's name.

        Raises:
            BeftError: If there is no such adapter, its task is not one of labels, or an input is not as it needs.
        """
        task = self._task(adapter)
        found = [
            example
            for number, given in enumerate(inputs, start=1)
            for _, example in task.parse_input(input_row(task, given, f"input {number}"), f"input {number}")
        ]
        most = max((len(getattr(example, "options", ())) for example in found), default=0)
        if most > MOST_OPTIONS:
            raise DataError(f"an input has {most} options, and {MOST_OPTIONS} are the most: give fewer.")
        preprocessor = self._preprocessor(task)
        features = preprocessor.encode(task.numbered(found))
        limit = usable_positions(self.bank.model)
        longest = max((preprocessor.positions(one) for one in features), default=0)
        if limit is not None and longest > limit:
            raise DataError(f"an input needs {longest} positions, and the model has {limit}: shorten it.")
        return [{**one, "adapter": adapter, "kind": task.kind} for one in features]

    def _task(self, adapter: str) -> TaskRecord:
        task = self.bank.adapter(adapter).task
        if task is None or task.kind not in CLASSIFIED:
            what = "says of no task" if task is None else f"was trained on a task of the kind {task.kind!r}"
            raise DataError(f"adapter {adapter!r} {what}; labels are predicted for {', '.join(CLASSIFIED)}.")
        return task

    def _preprocessor(self, task: TaskRecord) -> Preprocessor:
        made: Preprocessor = PREPROCESSORS[task.kind](task, self.tokenizer, EncodingOptions(task.max_length))
        return made

    def _objective(self, task: TaskRecord) -> Objective[Any]:
        return make_objective(task, lambda: self.tokenizer)

    @torch.inference_mode()
    def predict(self, features: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict what :meth:`encode` has encoded, of any adapters, in its order.

        Returns:
            For each example ``label`` and ``probabilities``, ``labels`` and ``probabilities``, or ``score``.
        """
        numbered = [{**one, "id": place} for place, one in enumerate(features)]
        texts = [one for one in numbered if one["kind"] in TEXT_KINDS]
        choices = [one for one in numbered if one["kind"] not in TEXT_KINDS]
        predicted = dict(zip((one["id"] for one in choices), self._choice_rows(choices), strict=True))
        if texts:
            # Tasks that read texts encode alike: any can make the batch.
            preprocessor = self._preprocessor(self._task(texts[0]["adapter"]))
            for batch in batches_of_like_length(texts, preprocessor.length, self._batch_size):
                predicted.update(zip((one["id"] for one in batch), self._text_rows(preprocessor, batch), strict=True))
        return [predicted[place] for place in range(len(numbered))]

    def _text_rows(self, preprocessor: Preprocessor, features: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        names = [one["adapter"] for one in features]
        plain = [{k: v for k, v in one.items() if k not in ("adapter", "kind")} for one in features]
        batch = move_data_to_device(preprocessor.collate_evaluation(plain), self.bank.model.device)
        objectives = [self._objective(self._task(name)) for name in names]
        with self.bank.rows(names) as model:
            first = objectives[0]
            assert isinstance(first, ClassificationObjective)
            logits = first.logits(model, batch)
        rows = []
        for row, objective in zip(logits, objectives, strict=True):
            assert isinstance(objective, ClassificationObjective)
            rows += objective.rows_of(row[None, : objective.config["num_labels"]])
        return rows

    def _choice_rows(self, features: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        encoded = [(one["adapter"], self._parts(one["encoded"])) for one in features]
        calibrated = [one for one in features if "calibration" in one]
        blank = [(one["adapter"], self._parts(one["calibration"])) for one in calibrated]
        found = self.score([*encoded, *blank])
        behind_blank = {one["id"]: scores for one, scores in zip(calibrated, found[len(encoded) :], strict=True)}
        rows = []
        for one, scores in zip(features, found, strict=False):
            sums, lengths = torch.tensor(scores).unbind(1)
            blank_sums = torch.tensor(behind_blank[one["id"]])[:, 0] if one["id"] in behind_blank else None
            names = one["candidates"] or self._task(one["adapter"]).labels or [str(i) for i in range(len(sums))]
            rows += labelled_rows(option_scores(sums, lengths, blank_sums).softmax(dim=-1)[None], [names])
        return rows

    def _names_of_rows(self, names: Sequence[str | None], batch: dict[str, Any]) -> list[str | None]:
        """Return the adapter of each row that the model is called with: an example's, or an option's."""
        if needs_separate_rows(self.bank.model, batch):
            return [names[row] for row in batch["option_row"].tolist()]
        return list(names)

    @torch.inference_mode()
    def score(self, requests: Sequence[tuple[str | None, Sequence[EncodedOptions]]]) -> list[list[tuple[float, int]]]:
        """Return the log-probability of options behind prompts.

        Args:
            requests: The name of an adapter (None for the base), and what :meth:`encode_score` has encoded.

        Returns:
            For each request, the log-probability and the number of tokens of each option.
        """
        parts = [(place, name, part) for place, (name, encoded) in enumerate(requests) for part in encoded]
        order = sorted(range(len(parts)), key=lambda place: parts[place][2].length)
        found: dict[int, list[tuple[float, int]]] = {}
        for batch in self._batches([parts[place] for place in order]):
            found.update(zip(order[len(found) :], self._score_batch(batch), strict=False))
        scores: list[list[tuple[float, int]]] = [[] for _ in requests]
        for place, (request, _, _) in enumerate(parts):
            scores[request] += found[place]
        return scores

    def _batches(self, parts: Sequence[_Part]) -> Iterator[list[_Part]]:
        """Yield neighbours that need at most :data:`MOST_TOKENS` tokens together, padding included."""
        batch: list[_Part] = []
        for part in parts:
            if batch and (len(batch) == self._batch_size or self._tokens([*batch, part]) > MOST_TOKENS):
                yield batch
                batch = []
            batch.append(part)
        if batch:
            yield batch

    def _tokens(self, parts: Sequence[_Part]) -> int:
        """Return the number of tokens of a pass over parts: of their rows, or of a row for each option."""
        encoded = [part for _, _, part in parts]
        columns = max(part.length for part in encoded)
        packed = any(part.length > len(part.shared) for part in encoded)
        if packed and not takes_packed_rows(self.bank.model, columns):
            return sum(len(part.own) for part in encoded) * max(part.positions for part in encoded)
        return len(encoded) * columns

    def _score_batch(self, parts: Sequence[_Part]) -> list[list[tuple[float, int]]]:
        """Return for each part the log-probability and the number of tokens of each of its options."""
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        packed = pack_options([part for _, _, part in parts], int(pad or 0))
        batch = move_data_to_device(packed, self.bank.model.device)
        with self.bank.rows(self._names_of_rows([name for _, name, _ in parts], batch)) as model:
            sums, lengths = option_log_probabilities(model, batch)
        scored = zip(sums.tolist(), lengths.long().tolist(), strict=True)
        return [list(islice(scored, len(part.own))) for _, _, part in parts]

    def encode_score(self, prompt: str, options: Sequence[str]) -> list[EncodedOptions]:
        """Encode a prompt with options; nothing is cut.

        Returns:
            The options in order, in as many parts as keep each within :data:`MOST_TOKENS` tokens.

        Raises:
            DataError: If an option is empty, or the request is longer than the model's positions.
        """
        limit = usable_positions(self.bank.model)
        encoded = encode_options(self.tokenizer, prompt, options, limit or 1 << 30)
        if encoded.truncated:
            raise DataError(f"prompt and longest option are longer than the model's {limit} positions: shorten them.")
        return self._parts(encoded)

    def _parts(self, encoded: EncodedOptions) -> list[EncodedOptions]:
        """Divide options among as many parts as keep each within :data:`MOST_TOKENS` tokens, in order."""
        if len(encoded.own) == 1 or self._tokens([(0, None, encoded)]) <= MOST_TOKENS:
            return [encoded]
        return [part for half in encoded.halves() for part in self._parts(half)]
