"""One episode as a state machine: no gymnasium and no retrieval in it, so anything can step it.

    prompt = episode.begin(question)
    while episode.status is Status.RUNNING:
        move = episode.act(turn)                              # parses and judges the turn; changes nothing
        step = episode.observe(move, run(tools, move.calls))  # commits; raises an outage and then changes nothing

`ReSearchEnv.step` is these two lines. Code that steps many episodes can run the calls of all their moves together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from research_env.errors import ConfigurationError
from research_env.evidence import Evidence
from research_env.info import Info
from research_env.protocols.base import Action, ActionProtocol, Answer, Calls, Malformed, ParsedTurn
from research_env.rewards import Outcome, exact_match, f1
from research_env.text import mended
from research_env.tools.base import Tool
from research_env.types import Call, Passage, Question, Result, Status, Step

_RUNNING = Status.RUNNING  # looked up several times a step, and slow to look up in an enumeration


@dataclass(frozen=True, slots=True)
class Rules:
    """What bounds an episode."""

    max_searches: int
    max_turns: int
    feedback: bool
    """Whether a malformed turn gets a corrective line; otherwise it ends the episode."""


class Move(NamedTuple):
    """A turn that was parsed and judged, but not yet carried out: the episode has not changed."""

    turn: ParsedTurn
    action: Action
    """The turn's action; `Malformed` where every call of it is bad."""
    calls: tuple[Call, ...]
    """The calls to run, in order. None are to be run where the turn exceeds a budget."""
    refused: tuple[Result, ...]
    """The bad calls of a turn that has good ones too. The policy is told what is wrong in their place."""
    status: Status
    """What the episode will be once the move is observed."""
    number: int
    """The turn it is for, counted over all episodes of its `Episode`."""


class Episode:
    """One episode at a time; `begin` starts the next."""

    def __init__(
        self,
        protocol: ActionProtocol,
        tools: Mapping[str, Tool],
        rules: Rules,
        reward: Callable[[Outcome], float],
        instructions: str,
        corpus: Mapping[str, Any],
        gold_known: bool = True,
    ) -> None:
        """Keep the parts.

        Args:
            protocol: Parses turns and renders results.
            tools: Name -> tool; their schemas judge calls. They are not run here.
            rules: Budgets.
            reward: The reward of an episode that has ended.
            instructions: Prompt template with `{question}` in it.
            corpus: What is searched, for `info`.
            gold_known: Whether the gold passages of the questions are passages of that corpus.

        Raises:
            ConfigurationError: `{question}` does not stand in the instructions exactly once.
        """
        if instructions.count("{question}") != 1:
            raise ConfigurationError(f"instructions={instructions!r}: write {{question}} in it, exactly once")
        self._before, self._after = instructions.split("{question}")
        self._protocol, self._tools, self._rules, self._reward = protocol, tools, rules, reward
        self._corpus, self._gold_known = corpus, gold_known
        self._no_such_tool = f"there is no such tool; there are: {', '.join(tools)}"
        self._number = 0
        self.status = Status.ANSWERED  # nothing is running yet
        self.transcript: list[tuple[str, str]] = []
        """`(who, text)`; who is `prompt`, `policy` or `environment`."""

    def begin(self, question: Question, place: int = 0, num_questions: int = 1) -> str:
        """Start an episode on a question, and return the prompt; `info` is there in `self.info`.

        Args:
            question: The question.
            place: Its place in the order of the questions, for `info`.
            num_questions: How many there are, for `info`.
        """
        self._question = question
        self._evidence = Evidence(question)
        self._turn = self._searches = 0
        self._number += 1  # a move of the episode before must not fit the first turn of this one
        self._format_ok = True
        self.status = _RUNNING
        self.asked = self._protocol.neutralise(question.text)
        """The question as the policy reads it."""
        prompt = self._before + self.asked + self._after
        self.transcript = [("prompt", prompt)]
        self._blank = self._blank_info(place, num_questions)
        self.info = self._blank.copy()
        self.info["messages"] = [{"role": "user", "content": prompt}]
        return prompt

    def act(self, text: str) -> Move:
        """Parse and judge one turn of the policy. Any `str` is legal, and is read as Unicode. Nothing changes."""
        turn = self._protocol.parse(mended(text))
        action = turn.action
        last = self._turn + 1 >= self._rules.max_turns
        calls: tuple[Call, ...] = ()
        refused: tuple[Result, ...] = ()
        searches = 0
        if isinstance(action, Calls):
            for call in action.calls:
                tool = self._tools.get(call.tool)
                if fault := call.fault or (tool.fault(call.arguments) if tool else self._no_such_tool):
                    refused += (Result(call, text=fault),)
                else:
                    calls += (call,)
                    searches += tool is not None and tool.is_search
            # One good call is enough: the bad ones beside it cost nothing, and each gets its text.
            if not calls:
                action, refused = Malformed(refused[0].text if refused else "no call"), ()
        # It could only be wrong, and without a reason the policy would not learn why.
        elif isinstance(action, Answer) and not action.text.strip():
            action = Malformed("the answer is empty")
        if isinstance(action, Answer):
            status = Status.ANSWERED
        elif isinstance(action, Malformed) and not self._rules.feedback:
            status = Status.MALFORMED
        # Beyond a budget the calls are not run: no later turn could read what they find.
        elif last:
            status, calls = Status.OUT_OF_TURNS, ()
        elif self._searches + searches > self._rules.max_searches:
            status, calls = Status.OUT_OF_SEARCHES, ()
        else:
            status = _RUNNING
        return Move(turn, action, calls, refused, status, self._number)

    def observe(self, move: Move, results: Sequence[Result]) -> Step:
        """Carry out a move, with the results of its calls.

        Args:
            move: What `act` returned for this turn.
            results: One for each of `move.calls`, in order.

        Raises:
            Exception: the first `error` among the results. Nothing has changed: the calls of the same move can be run
                again.
            ValueError: the move was made for another turn, or results are missing.
        """
        if move.number != self._number or self.status is not _RUNNING or len(results) != len(move.calls):
            raise ValueError(
                f"turn {self._number} cannot take a move for turn {move.number} with {len(results)} results for "
                f"{len(move.calls)} calls"
            )
        for result in results:
            if result.error is not None:
                raise result.error
        action, turn = move.action, move.turn
        found: list[Passage] = []
        observation = ""
        said = [_message(turn.text, action)]
        # The text is made before any state changes: a protocol that raises leaves the episode as it was.
        if move.status is _RUNNING and isinstance(action, Calls):
            observation = self._tell(move, results, said)
            for call, result in zip(move.calls, results, strict=True):
                self._searches += self._tools[call.tool].is_search
                if result.passages is not None:
                    # A tool that is no search may bring passages before the first search.
                    self._evidence.saw(self._searches or 1, result.passages)
                    found += result.passages
        elif move.status is _RUNNING and isinstance(action, Malformed):
            observation = self._protocol.feedback(action)
            said.append({"role": "user", "content": observation})
        self._turn += 1
        self._number += 1
        self._format_ok &= turn.format_ok
        self.status = move.status
        self.transcript += (("policy", turn.text), ("environment", observation))
        # The copy is shallow, so each list and dictionary in it is replaced below and never changed in place.
        self.info = info = self._blank.copy()
        info["turn"], info["searches"] = self._turn, self._searches
        info["status"] = move.status._value_  # a plain string; `.value` is a slow property
        info["cut"], info["messages"] = turn.cut, said
        info["passage_ids"] = [passage.id for passage in found]
        # As the corpus has them: programs read these, and the policy reads the observation.
        info["passages"] = [{"id": p.id, "title": p.title, "text": p.text} for p in found]
        info["reward_parts"] = {"turn": 0.0, "outcome": 0.0}
        if isinstance(action, Calls):
            info["action"] = (move.calls or action.calls)[0].tool
        elif isinstance(action, Malformed):
            info["action"], info["malformed"] = "malformed", action.reason
            self._format_ok = False
        else:
            info["action"] = "answer"
        reward = 0.0 if move.status is _RUNNING else self._finish(action, info)
        return Step(observation, reward, move.status, info)

    def _tell(self, move: Move, results: Sequence[Result], said: list[dict[str, Any]]) -> str:
        """The observation after calls; the same goes into `said` as one message for each call."""
        # The bad calls go back between the good ones, by identity: two calls may be equal.
        if move.refused:
            assert isinstance(move.turn.action, Calls)
            good, bad = iter(results), {id(result.call): result for result in move.refused}
            results = [bad[id(call)] if id(call) in bad else next(good) for call in move.turn.action.calls]
        contents = []
        for result in results:
            contents.append(content := self._protocol.content(result))
            call = result.call
            said.append({"role": "tool", "name": call.tool, "tool_call_id": call.id, "content": content})
        return self._protocol.observation(contents)

    def _finish(self, action: Action, info: Info) -> float:
        """Add the keys of `info` that only an ended episode has, and return the reward."""
        # The answer comes from the parsed turn alone: passages may hold anything, tags and boxes included.
        answer = action.text if isinstance(action, Answer) else None
        golden = self._question.answers
        outcome = Outcome(
            answer=answer,
            em=exact_match(answer, golden) if answer else 0.0,
            f1=f1(answer, golden) if answer else 0.0,
            format_ok=self._format_ok and answer is not None,
            over_length=self.status.truncated,
        )
        info["answer"] = answer
        info["em"], info["f1"], info["format_ok"] = outcome.em, outcome.f1, outcome.format_ok
        info["golden_answers"] = list(golden)
        # Over another corpus a gold passage may have been shown under another id.
        info["gold_found"] = list(self._evidence.gold_found) if self._gold_known else None
        info["evidence"] = self._evidence.hops if self._gold_known else None
        info["answer_in_context"] = self._evidence.answer_in_context
        reward = float(self._reward(outcome))
        info["reward_parts"]["outcome"] = reward
        return reward

    def _blank_info(self, place: int, num_questions: int) -> Info:
        """`info` before the first turn. A later one starts as a copy of it, which is faster than making a new one."""
        return {
            "question_id": self._question.id,
            "question": self._question.text,
            "hops": self._question.hops,
            "place": place,
            "num_questions": num_questions,
            "turn": 0,
            "searches": 0,
            "corpus": self._corpus,
            "gold_known": self._gold_known,
            "status": _RUNNING._value_,
            "action": None,
            "cut": False,
            "malformed": None,
            "passages": [],
            "passage_ids": [],
            "messages": [],
            "reward_parts": {"turn": 0.0, "outcome": 0.0},
        }


def _message(text: str, action: Action) -> dict[str, Any]:
    """The policy's turn as a message of a chat."""
    if not isinstance(action, Calls):
        return {"role": "assistant", "content": text}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.tool, "arguments": call.arguments}}
        for call in action.calls
    ]
    return {"role": "assistant", "content": text, "tool_calls": calls}
