"""Settings as they were written before algorithms, renderers and wrappers had names of their own.

They are read wherever settings come from: presets that are files, `--config` files, saved settings of a run, and the
command line. They are never written.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from learners.settings import merge

OBJECTIVE = ("clip", "kl", "final_kl", "flat_episodes")
"""Settings that are in the section `objective` now."""
COST_WRAPPER = "research_env.wrappers.search_cost:SearchCost"


def new_form(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings under their present names; what is written under a present name wins.

    Old names: `clip`, `kl`, `final_kl` and `flat_episodes` (now `objective.*`), `chat` (now `renderer`), and
    `search_cost` (now a wrapper of the environment).

    Raises:
        ValueError: an old setting has an impossible value.
    """
    new = {name: value for name, value in settings.items() if name not in (*OBJECTIVE, "chat", "search_cost")}
    knobs = {name: settings[name] for name in OBJECTIVE if name in settings}
    if knobs:
        new = merge({"objective": knobs}, new)
    if "chat" in settings:
        if not isinstance(settings["chat"], bool):
            raise ValueError(f'chat = {settings["chat"]!r}: give true or false, or renderer = "templated"')
        new.setdefault("renderer", "templated" if settings["chat"] else "plain")
    if "search_cost" in settings:
        cost = search_cost(settings)
        # Also where the cost is 0: lists are replaced as a whole, so an empty one takes a preset's wrapper away.
        new = merge({"research": {"wrappers": []}}, new)
        if cost:
            wrapper = {"name": COST_WRAPPER, "kwargs": {"cost": cost}}
            new = merge(new, {"research": {"wrappers": [*new["research"]["wrappers"], wrapper]}})
    return new


def search_cost(settings: Mapping[str, Any]) -> float:
    """The old setting `search_cost`; 0.0 where it is not given.

    Raises:
        ValueError: it is not a number, or negative.
    """
    given = settings.get("search_cost", 0.0)
    try:
        cost = float(given)
    except (TypeError, ValueError):
        cost = -1.0
    if not 0 <= cost < float("inf"):
        raise ValueError(f"search_cost = {given!r}: give a number, 0 or more")
    return cost


def split_arguments(arguments: Sequence[str], prog: str) -> tuple[dict[str, Any], list[str]]:
    """Take the old flags out of a command line: what they say, in the old form, and the arguments that are left."""
    parser = argparse.ArgumentParser(prog, add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    for name in (*OBJECTIVE, "search_cost"):
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=argparse.SUPPRESS)
    parser.add_argument("--chat", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
    known, rest = parser.parse_known_args(list(arguments))
    # The command line writes a missing value as `null`; TOML has no such value.
    return {name: None if value == "null" else value for name, value in vars(known).items()}, rest
