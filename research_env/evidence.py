"""Evidence: which search found which gold passage, and whether a retrieved passage contains the answer."""

from __future__ import annotations

from collections.abc import Sequence

from research_env.text import lower_without_punctuation, normalize_answer
from research_env.types import Passage, Question

_VERDICTS = ("yes", "no", "noanswer")


class Evidence:
    """Evidence of one episode. `saw` is cheap enough for every step; the rest is computed when it is asked for."""

    def __init__(self, question: Question) -> None:
        self._question = question
        gold = (*question.gold_passages, *(hop.passage_id for hop in question.decomposition))
        self._found_at: dict[str, int | None] = dict.fromkeys(id for id in gold if id)
        self._seen: set[str] = set()
        self._unread: list[Passage] = []
        self._answer_seen = False

    def saw(self, search_number: int, passages: Sequence[Passage]) -> None:
        """Note what a search returned. `search_number` counts from 1 and never goes back."""
        seen, found_at = self._seen, self._found_at
        for passage in passages:
            ident = passage.id
            if ident not in seen:
                seen.add(ident)
                self._unread.append(passage)
                if ident in found_at:
                    found_at[ident] = search_number

    @property
    def gold_found(self) -> tuple[str, ...]:
        """Ids of the gold passages retrieved so far, each once, in the question's own order."""
        return tuple(id for id, found_at in self._found_at.items() if found_at is not None)

    @property
    def hops(self) -> list[dict[str, str | int | None]]:
        """For each hop in order `{question, answer, passage_id, found_at}`: JSON.

        `found_at` is the number of the first search that returned the hop's passage, None where none did. The list is
        empty for a question without decomposition.
        """
        return [
            {
                "question": hop.question,
                "answer": hop.answer,
                "passage_id": hop.passage_id,
                "found_at": self._found_at.get(hop.passage_id),
            }
            for hop in self._question.decomposition
        ]

    @property
    def answer_in_context(self) -> bool:
        """Whether the title or text of a retrieved passage contains a golden answer, as whole words.

        Both sides are normalised as for EM. Answers that normalisation leaves empty, and yes/no, never count: finding
        those words proves nothing. Reads each passage once, at the first call after it was seen.
        """
        if self._unread and not self._answer_seen:
            normal = {normalize_answer(answer) for answer in self._question.answers}
            wanted = [answer for answer in normal if answer and answer not in _VERDICTS]
            self._answer_seen = any(_holds(text, wanted) for p in self._unread for text in (p.title, p.text))
        self._unread.clear()
        return self._answer_seen


def _holds(text: str, answers: Sequence[str]) -> bool:
    """Whether the normalised text contains one of the normalised answers, as whole words."""
    # Removing the articles takes most of the time, and most texts do not even hold the words of an answer.
    plain = lower_without_punctuation(text)
    near = [answer for answer in answers if all(word in plain for word in answer.split())]
    if not near:
        return False
    whole = f" {normalize_answer(text)} "
    return any(f" {answer} " in whole for answer in near)
