"""Settings as they were written before algorithms, renderers and wrappers had names of their own.

They are read wherever settings come from: presets that are files, `--config` files, saved settings of a run, and the
command line. They are never written.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from learners.flags import Parser
from learners.settings import merge

OBJECTIVE = ("clip", "kl", "final_kl", "flat_episodes")
"""Settings that are in the section `objective` now."""
COST_WRAPPER = "research_env.wrappers.search_cost:SearchCost"


def new_form(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings under their present names; what is written under a present name wins.

    Old names: `clip`, `kl`, `final_kl` and `flat_episodes` (now `objective.*`), and `chat` (now `renderer`).
    `search_cost` stays, for `with_cost`.

    Raises:
        ValueError: an old setting has an impossible value.
    """
    new = {name: value for name, value in settings.items() if name not in (*OBJECTIVE, "chat")}
    knobs = {name: settings[name] for name in OBJECTIVE if name in settings}
    if knobs:
        new = merge({"objective": knobs}, new)
    if "chat" in settings:
        if not isinstance(settings["chat"], bool):
            raise ValueError(f'chat = {settings["chat"]!r}: give true or false, or renderer = "templated"')
        new.setdefault("renderer", "templated" if settings["chat"] else "plain")
    return new


def with_cost(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings with the old `search_cost` as a wrapper of the environment, beside the other wrappers.

    Raises:
        ValueError: it is not a number, or negative.
    """
    rest = {name: value for name, value in settings.items() if name != "search_cost"}
    if "search_cost" not in settings:
        return rest
    cost, research = _cost(settings["search_cost"]), rest.get("research", {})
    wrappers = research.get("wrappers", []) if isinstance(research, Mapping) else None
    if not isinstance(wrappers, list):
        return rest  # the section is checked later, and its own fault is named then
    others = [each for each in wrappers if (each.get("name") if isinstance(each, Mapping) else each) != COST_WRAPPER]
    own = [{"name": COST_WRAPPER, "kwargs": {"cost": cost}}] if cost else []
    return {**rest, "research": {**research, "wrappers": [*others, *own]}}


def _cost(given: Any) -> float:
    try:
        cost = float(given)
    except (TypeError, ValueError):
        cost = -1.0
    if not 0 <= cost < float("inf"):
        raise ValueError(f"search_cost = {given!r}: give a number, 0 or more")
    return cost


def split_arguments(arguments: Sequence[str], prog: str) -> tuple[dict[str, Any], list[str]]:
    """Take the old flags out of a command line: what they say, in the old form, and the arguments that are left."""
    parser = Parser(prog, add_help=False)
    for name in (*OBJECTIVE, "search_cost"):
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name)
    parser.add_argument("--chat", action=argparse.BooleanOptionalAction)
    known, rest = parser.parse_known_args(list(arguments))
    # The command line writes a missing value as `null`; TOML has no such value.
    return {name: None if value == "null" else value for name, value in vars(known).items()}, rest
