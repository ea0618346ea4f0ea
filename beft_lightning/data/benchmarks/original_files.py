"""Objects of the benchmarks' original files as rows, one for each example; rows of the hub pass as they are."""

from collections.abc import Iterator, Mapping
from typing import Any

from beft_lightning.data.sources import Row
from beft_lightning.errors import DataError


def flatten_wsc(row: Row) -> Iterator[Row]:
    """Yield a row of WSC with its two spans side by side, as on the hub; the original file nests them."""
    yield {**row, **row.get("target", {})}


def flatten_multirc(row: Row) -> Iterator[Row]:
    """Yield a row for each answer to judge of a passage of MultiRC."""
    if "paragraph" in row:  # as on the hub: one answer a row
        place = row["idx"]
        yield {**row, "group": f"{place['paragraph']}-{place['question']}", "source": place["paragraph"]}
        return
    for question in row["passage"]["questions"]:
        for answer in question["answers"]:
            yield {
                **_place(paragraph=row, question=question, answer=answer),
                "paragraph": row["passage"]["text"],
                "question": question["question"],
                "answer": answer["text"],
                **_given(answer, "label"),
                "group": f"{row['idx']}-{question['idx']}",
                "source": row["idx"],
            }


def flatten_record(row: Row) -> Iterator[Row]:
    """Yield a row for each query of a passage of ReCoRD."""
    if "qas" not in row:  # as on the hub: one query a row
        yield row
        return
    text = row["passage"]["text"]
    # The end of a span is its last character.
    entities = [text[entity["start"] : entity["end"] + 1] for entity in row["passage"]["entities"]]
    for qa in row["qas"]:
        answers = {"answers": [answer["text"] for answer in qa["answers"]]} if "answers" in qa else {}
        yield {**_place(passage=row, query=qa), "passage": text, "query": qa["query"], "entities": entities, **answers}


def flatten_squad(article: Row) -> Iterator[Row]:
    """Yield a row for each question of an article of SQuAD.

    Raises:
        DataError: If an answer is not where the file says it is.
    """
    if "paragraphs" not in article:  # as on the hub: one question a row
        yield article
        return
    for paragraph in article["paragraphs"]:
        for qa in paragraph["qas"]:
            for answer in qa.get("answers", ()):
                begin = answer["answer_start"]
                if paragraph["context"][begin : begin + len(answer["text"])] != answer["text"]:
                    raise DataError(
                        f"question {qa['id']}: the answer {answer['text']!r} is not at {begin} in its context"
                    )
            answers = {"answers": {"text": [answer["text"] for answer in qa["answers"]]}} if "answers" in qa else {}
            asked = {"title": article["title"], "context": paragraph["context"], "question": qa["question"]}
            yield {**_given(qa, "id"), **asked, **answers}


def flatten_drop(passage: Row) -> Iterator[Row]:
    """Yield a row for each question of a passage of DROP."""
    if "qa_pairs" not in passage:  # as on the hub: one question a row
        yield {**passage, **({"answers": [passage["answers_spans"]["spans"]]} if "answers_spans" in passage else {})}
        return
    for qa in passage["qa_pairs"]:
        given = [qa[name] for name in ("answer",) if name in qa] + qa.get("validated_answers", [])
        answers = {"answers": [spans for answer in given if (spans := drop_spans(answer))]} if given else {}
        yield {**_given(qa, "query_id"), "passage": passage["passage"], "question": qa["question"], **answers}


def drop_spans(answer: Mapping[str, Any]) -> list[str]:
    """Return a DROP answer as its spans: a number, the spans themselves, or a date; empty if the record is."""
    if answer.get("number"):
        return [str(answer["number"])]
    if answer.get("spans"):
        return list(answer["spans"])
    date = answer.get("date") or {}
    text = " ".join(date[part] for part in ("day", "month", "year") if date.get(part))
    return [text] if text else []


def _given(row: Row, name: str) -> Row:
    """Return one column of a row, or nothing if the row lacks it, as those of test sets lack labels."""
    return {name: row[name]} if name in row else {}


def _place(**nested: Row) -> Row:
    """Return ``idx`` as the hub has it: the ``idx`` of each object that a row is nested in; nothing if one has none."""
    if not all("idx" in part for part in nested.values()):
        return {}
    return {"idx": {name: part["idx"] for name, part in nested.items()}}
