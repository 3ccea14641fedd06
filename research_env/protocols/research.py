r"""The protocol of ReSearch (Chen et al. 2025, arXiv 2503.19470): `<think> <search> <result> <answer>` and `\boxed{}`.

One turn of the policy, and what the environment appends to it:

    <think> I need the author first. </think> <search> author of Amber Kesh </search> <result>
    Amber Kesh
    Amber Kesh is a novel by Bram Tovik …
    </result>

and in the end

    <think> It was Bram Tovik. </think> <answer> The author is \boxed{Bram Tovik}. </answer>

A further tool is used by a tag of its own name, around its one argument: `<calculator> 12 * 7 </calculator>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from research_env.errors import ConfigurationError
from research_env.protocols.base import Action, Answer, Calls, Malformed, ParsedTurn
from research_env.protocols.boxed import box, is_opened, last_boxed
from research_env.protocols.latex import plain
from research_env.protocols.tags import Tags, first
from research_env.tools.base import Tool
from research_env.types import Call, Result

_BEFORE = (
    "Answer the question at the end by reasoning in steps, with a search engine to help you. "
    "First of all, and again after every search, write your reasoning between <think> and </think>. "
    "Where you lack a fact, ask for it between <search> and </search>: the passages that were found will be given to "
    "you between <result> and </result>, which you never write yourself. "
    "Search as often as you need to, for one thing at a time. "
)
_AFTER = (
    "Once you know enough, answer between <answer> and </answer>, with the final answer, as short as possible, "
    "inside \\boxed{}.\n\n"
    "For example: <think> your reasoning </think> <search> your query </search> <result> passages </result> "
    "<think> your reasoning </think> <answer> The final answer is \\boxed{answer here}. </answer>\n\n"
    "Question: {question}"
)


class ResearchProtocol:
    """`ActionProtocol` of the paper. Stateless.

    Tags of the policy count only when written exactly (lower case, no spaces inside), as in the paper's code.
    """

    stop: tuple[str, ...]
    instructions: str
    r"""The paper's prompt in our words. It has other braces (`\boxed{}`): replace `{question}`, do not `format`."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Keep the tools.

        Raises:
            ConfigurationError: a tool does not take exactly one text, or has the name of another tag.
        """
        for tool in tools:
            if len(tool.required) != 1:
                raise ConfigurationError(
                    f"tool {tool.name!r} takes {len(tool.required)} arguments: {', '.join(tool.required) or 'none'}; "
                    "protocol 'research' can use a tool that takes exactly one"
                )
            kind = tool.parameters["properties"].get(tool.required[0], {}).get("type", "string")
            if kind != "string":
                raise ConfigurationError(
                    f"tool {tool.name!r} takes an argument of type {kind}; protocol 'research' gives it a string"
                )
            if tool.name in ("think", "result", "answer"):
                raise ConfigurationError(f"tool {tool.name!r}: protocol 'research' has a tag of that name")
        self._arguments = {tool.name: tool.required[0] for tool in tools}
        self._acting = [*self._arguments, "answer"]
        self.stop = tuple(f"</{name}>" for name in self._acting)
        self._openings = {f"</{name}>": (name, f"<{name}>") for name in self._acting}
        self._tags = Tags(["think", "result", *self._acting])
        # Nearly every turn of a trained policy. It holds no other `<`, so nothing else in it can be a tag.
        self._usual = re.compile(rf"\s*+<think>[^<]*+</think>\s*+<({'|'.join(self._acting)})>([^<]*+)</\1>")
        others = [tool for tool in tools if tool.name != "search"]
        more = "".join(f"With {self._use(tool.name)} you can use a tool: {tool.description} " for tool in others)
        self.instructions = _BEFORE + more + _AFTER
        self._remedy = "".join(f"{self._use(name)} to {'search' if name == 'search' else 'use it'} or "
                               for name in self._arguments)  # fmt: skip
        forms = [f"<{name}>…</{name}>" for name in self._acting]
        self._no_action = Malformed(f"no {', '.join(forms[:-1])} or {forms[-1]}")

    def parse(self, text: str) -> ParsedTurn:
        """Parse one policy turn; what comes after the first closing tag that acts is dropped.

        `ParsedTurn.format_ok` holds for exactly one `<think>…</think>` followed by exactly one `<search>…</search>` or
        `<answer>…</answer>`, with only white space around and between, and for an answer with a box in it.
        """
        if usual := self._usual.match(text):
            end = usual.end()
            return self._acts(usual[1], usual[2], text[:end], cut=bool(text[end:].strip()), well_formed=True)
        tag, end = first(text, self.stop)
        if tag is None:
            wrote_result = "<result>" in text or "</result>" in text
            return ParsedTurn(_WROTE_RESULT if wrote_result else self._no_action, text, cut=False, format_ok=False)
        kept = text[: end + len(tag)]
        cut = bool(text[end + len(tag) :].strip())
        if "<result>" in kept or "</result>" in kept:
            return ParsedTurn(_WROTE_RESULT, kept, cut, format_ok=False)
        name, opening = self._openings[tag]
        # The last one: a turn that opens a tag twice means what stands between the second and the closing tag.
        start = kept.rfind(opening)
        if start < 0:
            return ParsedTurn(Malformed(f"{tag} without {opening}"), kept, cut, format_ok=False)
        return self._acts(name, kept[start + len(opening) : end], kept, cut, self._well_formed(kept, opening))

    def _acts(self, name: str, content: str, kept: str, cut: bool, well_formed: bool) -> ParsedTurn:
        """A turn that ends in the closing tag of `name`, around `content`."""
        content = content.strip()
        if name != "answer":
            action: Action = Calls((Call("1", name, {self._arguments[name]: content}),))
            return ParsedTurn(action, kept, cut, well_formed)
        boxed = last_boxed(content)
        if boxed is None:
            return ParsedTurn(_OPEN_BOX if is_opened(content) else _NO_BOX, kept, cut, format_ok=False)
        return ParsedTurn(Answer(plain(boxed)), kept, cut, well_formed)

    def neutralise(self, text: str) -> str:
        r"""See `Tags.neutralise`. `\boxed{}` is left: only a parsed turn of the policy can answer."""
        return self._tags.neutralise(text)

    def content(self, result: Result) -> str:
        """The passages, title on a line of its own, one blank line between two; or the text of another tool."""
        if result.passages is None:
            return self.neutralise(result.text)
        # Neutralised as one text, so that no tag can form across a title and a text either.
        return self.neutralise("\n\n".join([f"{p.title}\n{p.text}" for p in result.passages])) or "No passage found."

    def observation(self, contents: Sequence[str]) -> str:
        """Each content between `<result>` and `</result>`; the leading space is the paper's."""
        return "".join([f" <result>\n{content}\n</result>" for content in contents])

    def feedback(self, malformed: Malformed) -> str:
        r"""One line that names the fault and shows the legal turns; never holds a `<result>`."""
        return (
            f"\nThat turn cannot be used: {self.neutralise(malformed.reason)}. "
            f"Write <think> reasoning </think> and then either {self._remedy}"
            "<answer> \\boxed{answer} </answer> to answer.\n"
        )

    def search_turn(self, thought: str, query: str) -> str:
        """A well-formed turn; `parse` gives a search for `neutralise(query).strip()`."""
        return self._turn(thought, "search", self.neutralise(query.strip()))

    def answer_turn(self, thought: str, answer: str) -> str:
        """A well-formed turn; `parse` gives `Answer(neutralise(answer).strip())`, for any answer."""
        return self._turn(thought, "answer", box(self.neutralise(answer.strip())))

    def _turn(self, thought: str, tag: str, content: str) -> str:
        return f"<think> {self.neutralise(thought.strip())} </think> <{tag}> {content} </{tag}>"

    def _use(self, name: str) -> str:
        return f"<{name}> {self._arguments[name]} </{name}>"

    def _well_formed(self, kept: str, opening: str) -> bool:
        """Whether a turn that ends in the closing tag of `opening` is `<think>…</think> opening…`, each tag once."""
        if kept.count("<think>") != 1 or kept.count("</think>") != 1 or kept.count(opening) != 1:
            return False
        for _, other in self._openings.values():
            if other in kept and other != opening:
                return False
        thought, _, act = kept.partition("</think>")
        return thought.lstrip().startswith("<think>") and act.lstrip().startswith(opening)


_WROTE_RESULT = Malformed("wrote its own <result>")
_NO_BOX = Malformed(r"no \boxed{…} in the answer")
_OPEN_BOX = Malformed(r"the \boxed{ of the answer is not closed")
