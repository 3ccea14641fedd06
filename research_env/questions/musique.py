"""MuSiQue (Trivedi et al., 2022): questions of 2 to 4 hops, each with its decomposition and 20 paragraphs.

An official row (dev), shortened:

    {"id": "2hop__108336_772156",
     "paragraphs": [{"idx": 0, "title": "Allegory of Isabella d'Este's Coronation", "paragraph_text": "The Allegory of
        Isabella d'Este's Coronation is a painting by the Italian … Lorenzo Costa the Elder, …", "is_supporting": true},
        {"idx": 1, "title": "Marsuppini Coronation", "paragraph_text": "…", "is_supporting": false}, …],
     "question": "Where did the creator of the Allegory of Isabella d'Este's Coronation die?",
     "question_decomposition": [
        {"id": 108336, "question": "Which was the creator of Allegory of Isabella d'Este's Coronation?",
         "answer": "Lorenzo Costa", "paragraph_support_idx": 0},
        {"id": 772156, "question": "#1 >> place of death", "answer": "Mantua", "paragraph_support_idx": 16}],
     "answer": "Mantua", "answer_aliases": [], "answerable": true}
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from research_env.errors import DataInvalid
from research_env.questions import store
from research_env.questions.base import OfficialRow, Splits, read_rows
from research_env.text import passage_id, plain_title
from research_env.types import Dataset, Hop, Passage, Pool, Question

NAME = "musique"
_log = logging.getLogger(__name__)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]


class Paragraph(BaseModel):
    """One of a row's paragraphs."""

    model_config = ConfigDict(strict=True)

    idx: int
    title: Annotated[str, AfterValidator(plain_title)]
    paragraph_text: str


class Step(BaseModel):
    """One hop of a row's decomposition."""

    model_config = ConfigDict(strict=True)

    question: Text
    """`#1` stands for the answer of the first hop, and so on."""
    answer: str
    paragraph_support_idx: int | None
    """`idx` of the gold paragraph; None in an unanswerable row, where that paragraph was taken out."""


class Row(OfficialRow):
    """One official row: the fields that are read here."""

    model_config = ConfigDict(strict=True)

    id: Text
    paragraphs: Annotated[list[Paragraph], Field(min_length=1)]
    question: Text
    question_decomposition: Annotated[list[Step], Field(min_length=1)]
    answer: Text
    answer_aliases: list[str]

    @model_validator(mode="after")
    def _gold_paragraphs_are_there(self) -> Self:
        known = {paragraph.idx for paragraph in self.paragraphs}
        for number, step in enumerate(self.question_decomposition):
            if self.answerable and step.paragraph_support_idx not in known:
                field = f"question_decomposition[{number}].paragraph_support_idx"
                raise ValueError(f"{field}={step.paragraph_support_idx}: no paragraph has this idx")
        return self


def load() -> Dataset:
    """The splits on this machine. Nothing is parsed yet: a split is read when it is asked for, passages when an index
    is built.

    Raises:
        DataMissing: no split is on this machine.
    """
    files = store.find(NAME)
    # Taken before anything is read, and checked again after each file, because the index is kept under it.
    fingerprint = store.fingerprint(files)
    pool = Pool(
        name=NAME,
        fingerprint=fingerprint,
        passages=partial(_passages, files, fingerprint),
        count=partial(store.passage_count, NAME, fingerprint, lambda: sum(1 for _ in _passages(files, fingerprint))),
    )
    return Dataset(NAME, Splits({split: partial(_questions, split, files, fingerprint) for split in files}), pool)


def _questions(split: str, files: Mapping[str, Path], fingerprint: str) -> list[Question]:
    """The answerable questions of a split, in file order.

    Raises:
        DataInvalid: the file is damaged, or is no longer the one that `fingerprint` was made from.
    """
    questions: list[Question] = []
    unanswerable = 0
    for _, row in read_rows(files[split], Row):
        if row.answerable:
            questions.append(_question(row))
        else:
            unanswerable += 1
    _check_unchanged(files, fingerprint)
    _log.info("musique %s: %d questions, %d unanswerable rows left out", split, len(questions), unanswerable)
    return questions


def _question(row: Row) -> Question:
    ids = {p.idx: passage_id(p.title, p.paragraph_text) for p in row.paragraphs}
    hops: list[Hop] = []
    for step in row.question_decomposition:
        assert step.paragraph_support_idx is not None  # Row has checked it, for an answerable row
        hops.append(Hop(_resolve(step.question, hops), step.answer, ids[step.paragraph_support_idx]))
    answers = [row.answer, *(alias for alias in row.answer_aliases if alias.strip())]
    return Question(
        id=row.id,
        text=row.question,
        answers=tuple(dict.fromkeys(answers)),
        hops=len(hops),
        decomposition=tuple(hops),
        gold_passages=tuple(dict.fromkeys(hop.passage_id for hop in hops)),
    )


def _resolve(question: str, before: Sequence[Hop]) -> str:
    """`question` with each `#n` that means an earlier hop replaced by its answer; "a #1 hit" in hop 1 stays."""

    def answer(reference: re.Match[str]) -> str:
        number = int(reference[1])
        return before[number - 1].answer if 1 <= number <= len(before) else reference[0]

    return re.sub(r"#(\d+)", answer, question)


def _passages(files: Mapping[str, Path], fingerprint: str) -> Iterator[Passage]:
    """The pool: every paragraph of every row, answerable or not, once, in file order.

    Raises:
        DataInvalid: the files are no longer those that `fingerprint` was made from.
    """
    seen: set[str] = set()
    # Questions share paragraphs, most of all as distractors, so the rows hold each several times.
    for path in files.values():
        for _, row in read_rows(path, Row):
            for paragraph in row.paragraphs:
                passage = passage_id(paragraph.title, paragraph.paragraph_text)
                if passage not in seen:
                    seen.add(passage)
                    yield Passage(passage, paragraph.title, paragraph.paragraph_text)
    # Checked at the end, when the last byte has been read. Otherwise an index of other passages would be kept under
    # this fingerprint.
    _check_unchanged(files, fingerprint)


def _check_unchanged(files: Mapping[str, Path], fingerprint: str) -> None:
    if store.fingerprint(files) != fingerprint:
        raise DataInvalid("the files of musique were replaced while this process was running; start it again")
