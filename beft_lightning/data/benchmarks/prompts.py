"""The eleven prompted tasks of the paper: prompts, verbalizers and recommended values of the published runs.

A prompt is what the model reads; an option is appended to it as it stands. The wording is MeZO's (arXiv 2305.17333),
which the published runs use.
"""

from collections.abc import Mapping

from beft_lightning.data.benchmarks.original_files import (
    flatten_drop,
    flatten_multirc,
    flatten_record,
    flatten_squad,
    flatten_wsc,
)
from beft_lightning.data.labels import label_index
from beft_lightning.data.prompt_task import Prompted, PromptTask
from beft_lightning.data.sources import Row
from beft_lightning.data.verbalizer import Verbalizer
from beft_lightning.errors import DataError

_SUPER_GLUE = "aps/super_glue"
_NO_YES = ("false", "true")
_CHOICES = ("choice1", "choice2")


def _sst2_prompt(row: Row) -> str:
    return f"{row['sentence'].strip()} It was"


def _boolq_prompt(row: Row) -> str:
    question = row["question"] if row["question"].endswith("?") else f"{row['question']}?"
    return f"{row['passage']} {question[0].upper()}{question[1:]}\n"


def _wsc_prompt(row: Row) -> str:
    pronoun = row["span2_text"].lower()
    return (
        f'{row["text"]}\nIn the previous sentence, does the pronoun "{pronoun}" refer to {row["span1_text"]}? '
        "Yes or No?\n"
    )


def _copa_examples(row: Row) -> list[Prompted]:
    premise = row["premise"].strip().removesuffix(".")
    conjunction = {"effect": " so", "cause": " because"}[row["question"]]
    choices = tuple(_lower_first_word(row[name]) for name in _CHOICES)
    options = tuple(f" {choice}" for choice in choices)
    right = (label_index(row["label"], _CHOICES),) if "label" in row else ()
    return [Prompted(premise + conjunction, options, right, calibration_prompt=conjunction.strip())]


def _lower_first_word(text: str) -> str:
    first, space, rest = text.strip().partition(" ")
    return text.strip() if first == "I" else first.lower() + space + rest


def _record_examples(row: Row) -> list[Prompted]:
    passage = row["passage"].replace("@highlight\n", "- ")
    entities = tuple(dict.fromkeys(row["entities"]))
    known = row.get("answers", [])
    right = tuple(i for i, entity in enumerate(entities) if entity in known)
    if "answers" in row and not right:
        raise DataError(f"no right answer ({', '.join(known) or 'none given'}) among the entities")
    options = tuple(f" {row['query'].replace('@placeholder', entity)}" for entity in entities)
    answers = tuple((answer,) for answer in dict.fromkeys(known))
    return [Prompted(f"{passage}\n-", options, right, answers, entities, calibration_prompt="-")]


def _squad_examples(row: Row) -> list[Prompted]:
    prompt = f"Title: {row['title']}\nContext: {row['context']}\nQuestion: {row['question'].strip()}\nAnswer:"
    if "answers" not in row:
        return [Prompted(prompt, ())]
    texts = row["answers"]["text"]
    if not texts:
        raise DataError(f"the question {row['question']!r} has no answer")
    return [Prompted(prompt, (f" {texts[0]}\n",), answers=tuple((text,) for text in texts))]


def _drop_examples(row: Row) -> list[Prompted]:
    prompt = f"Passage: {row['passage']}\nQuestion: {row['question'].strip()}\nAnswer:"
    if "answers" not in row:
        return [Prompted(prompt, ())]
    if not row["answers"]:
        raise DataError(f"the question {row['question']!r} has no answer")
    answers = tuple(tuple(spans) for spans in row["answers"])
    return [Prompted(prompt, (f" {answers[0][0]}\n",), answers=answers)]


#: Prompted tasks by name; learning rates are those of the published OPT runs, 5 epochs at an effective batch of 8.
PROMPT_TASKS: Mapping[str, PromptTask] = {
    task.name: task
    for task in (
        PromptTask(
            name="sst2",
            kind="choice",
            columns=("sentence", "label"),
            text=("sentence",),
            examples=Verbalizer(
                _sst2_prompt,
                (" terrible", " great"),
                ("negative", "positive"),
                calibration="It was",
            ),
            labels=("negative", "positive"),
            hub=("nyu-mll/glue", "sst2"),
        ),
        PromptTask(
            name="rte",
            kind="choice",
            columns=("premise", "hypothesis", "label"),
            text=("premise", "hypothesis"),
            examples=Verbalizer(
                '{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n',
                ("Yes", "No"),
                ("entailment", "not_entailment"),
            ),
            labels=("entailment", "not_entailment"),
            hub=(_SUPER_GLUE, "rte"),
        ),
        PromptTask(
            name="cb",
            kind="choice",
            columns=("premise", "hypothesis", "label"),
            text=("premise", "hypothesis"),
            examples=Verbalizer(
                'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n',
                ("Yes", "No", "Maybe"),
                ("entailment", "contradiction", "neutral"),
            ),
            metrics=("accuracy", "macro_f1"),
            labels=("entailment", "contradiction", "neutral"),
            learning_rate=1e-2,
            batch_size=1,
            hub=(_SUPER_GLUE, "cb"),
        ),
        PromptTask(
            name="boolq",
            kind="choice",
            columns=("passage", "question", "label"),
            text=("passage", "question"),
            examples=Verbalizer(_boolq_prompt, ("No", "Yes"), _NO_YES),
            labels=_NO_YES,
            batch_size=4,
            hub=(_SUPER_GLUE, "boolq"),
        ),
        PromptTask(
            name="wsc",
            kind="choice",
            columns=("text", "span1_text", "span2_text", "label"),
            text=("text", "span1_text", "span2_text"),
            flatten=flatten_wsc,
            examples=Verbalizer(
                _wsc_prompt,
                ("No", "Yes"),
                _NO_YES,
            ),
            labels=_NO_YES,
            learning_rate=1e-2,
            hub=(_SUPER_GLUE, "wsc.fixed"),
        ),
        PromptTask(
            name="wic",
            kind="choice",
            columns=("word", "sentence1", "sentence2", "label"),
            text=("word", "sentence1", "sentence2"),
            examples=Verbalizer(
                'Does the word "{word}" have the same meaning in these two sentences? Yes, No?\n'
                "{sentence1}\n{sentence2}\n",
                ("No", "Yes"),
                _NO_YES,
            ),
            labels=_NO_YES,
            hub=(_SUPER_GLUE, "wic"),
        ),
        PromptTask(
            name="multirc",
            kind="choice",
            columns=("paragraph", "question", "answer", "label"),
            text=("paragraph", "question", "answer"),
            flatten=flatten_multirc,
            examples=Verbalizer(
                '{paragraph}\nQuestion: {question}\nI found this answer "{answer}". Is that correct? Yes or No?\n',
                ("No", "Yes"),
                _NO_YES,
                group="group",
                source="source",
            ),
            labels=_NO_YES,
            metrics=("accuracy", "f1a", "em"),
            batch_size=2,
            hub=(_SUPER_GLUE, "multirc"),
        ),
        PromptTask(
            name="copa",
            kind="choice",
            columns=("premise", "choice1", "choice2", "question", "label"),
            text=("premise", "choice1", "choice2", "question"),
            examples=_copa_examples,
            labels=_CHOICES,
            loss="lm",
            learning_rate=1e-4,
            hub=(_SUPER_GLUE, "copa"),
        ),
        PromptTask(
            name="record",
            kind="choice",
            columns=("passage", "query", "entities", "answers"),
            text=("passage", "query"),
            target="answers",
            flatten=flatten_record,
            examples=_record_examples,
            metrics=("accuracy", "answer_f1", "answer_em"),
            loss="lm",
            learning_rate=1e-4,
            batch_size=2,
            hub=(_SUPER_GLUE, "record"),
        ),
        PromptTask(
            name="squad",
            kind="generation",
            columns=("title", "context", "question", "answers"),
            text=("title", "context", "question"),
            target="answers",
            flatten=flatten_squad,
            examples=_squad_examples,
            metrics=("answer_f1", "answer_em"),
            loss="lm",
            batch_size=2,
            hub=("rajpurkar/squad", None),
        ),
        PromptTask(
            name="drop",
            kind="generation",
            columns=("passage", "question", "answers"),
            text=("passage", "question"),
            target="answers",
            flatten=flatten_drop,
            examples=_drop_examples,
            # The published runs report SQuAD's F1; DROP's own metric stands beside it.
            metrics=("answer_f1", "drop_f1", "drop_em"),
            loss="lm",
            batch_size=1,
            max_length=1536,
            hub=("ucinlp/drop", None),
        ),
    )
}
