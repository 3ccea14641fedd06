"""The command line of a model: a flag for each of its fields, `--section.field` for those of a section.

A mistake is a `ValueError` of one line, never a page of usage.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from learners.names import flat


class Parser(argparse.ArgumentParser):
    """`argparse`, whose mistakes are `ValueError`s that name the flag and the fix."""

    def __init__(self, prog: str, **options: Any) -> None:
        # An abbreviation would mean something else as soon as another flag begins in the same way.
        super().__init__(prog, allow_abbrev=False, argument_default=argparse.SUPPRESS, **options)

    def error(self, message: str) -> NoReturn:
        flag, _, reason = message.removeprefix("argument ").partition(": ")
        if not message.startswith("argument "):
            raise ValueError(f"{message}; see --help")
        flag = flag.split("/")[0]
        if reason.startswith("expected"):
            raise ValueError(f"{flag}: a value is missing; write {flag} VALUE")
        if ignored := re.fullmatch(r"ignored explicit argument (.*)", reason):
            raise ValueError(f"{flag} takes no value, and {ignored[1]} was given; write {flag} or --no-{flag[2:]}")
        raise ValueError(f"{flag}: {reason}")

    def flags(self) -> list[str]:
        """Every flag that it knows."""
        return list(self._option_string_actions)

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """What a command line gives, as a nested dictionary without defaults; sections are dictionaries.

        Raises:
            ValueError: a flag is unknown, has no value, or its value is not JSON where it must be.
        """
        known, unknown = self.parse_known_args(list(arguments))
        wrong = next((each for each in unknown if each.startswith("-")), None)
        if wrong is not None:
            flag = wrong.split("=")[0]
            raise ValueError(f"unknown argument {flag}{suggestion(flag, self.flags()) or '; see --help'}")
        if empty := [place for place, value in vars(known).items() if value == ""]:
            self.error(f"argument --{empty[0].replace('_', '-')}: expected one argument")
        given: dict[str, Any] = {}
        # Sections first, as JSON, so that a flag for one of their fields goes on top.
        for place, value in sorted(vars(known).items(), key=lambda item: item[0].count(".")):
            *sections, name = place.split(".")
            inside = given
            for section in sections:
                inside = inside.setdefault(section, {})
            inside[name] = {**inside.get(name, {}), **value} if isinstance(value, dict) else value
        if unknown:
            close = suggestion(f"--{unknown[0]}", self.flags())
            raise ValueError(f"unknown argument {unknown[0]!r}{close or '; a setting is written --name value'}")
        return given


class _Add(argparse.Action):
    """Collects what may be given several times: settings of a dictionary, or elements of a list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        read = _mapping if self.const is dict else _elements
        try:
            value = None if values == "null" else read(values)
        except ValueError as error:
            raise ValueError(f"{option_string} {values!r}: {error}") from None
        old = getattr(namespace, self.dest, None)
        if old is not None and value is not None:
            value = old | value if isinstance(value, dict) else old + value
        setattr(namespace, self.dest, value)


def add(
    parser: Parser, model: type[BaseModel], values: Mapping[str, Any], models: Mapping[str, type[BaseModel]],
    section: str = "",
) -> None:  # fmt: skip
    """Add the flags of a model's fields.

    Args:
        parser: Gets them.
        model: Its fields' docstrings are the help.
        values: What holds where a flag is not given, for the help; a field's own default where it is missing here.
        models: Section -> its model, where the field's type does not say which.
        section: Prefix of the flags, e.g. `"engine."`.
    """
    group: Any = parser.add_argument_group(section.removesuffix("."), flat(model.__doc__ or "")) if section else parser
    sections = []
    for name, field in model.model_fields.items():
        place = section + name
        kind = _kind(field.annotation)
        inner = models.get(place) or (kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None)
        now = values.get(name, field.get_default(call_default_factory=True))
        options: dict[str, Any] = {"dest": place, "metavar": _metavar(kind, inner), "help": _help(field, now, inner)}
        if kind is bool:
            options = {**options, "action": argparse.BooleanOptionalAction, "default": argparse.SUPPRESS}
            del options["metavar"]
        elif inner or kind in (dict, list):
            options |= {"action": _Add, "const": list if kind is list else dict}
        else:
            options["type"] = _any if kind is object else _scalar
        group.add_argument(f"--{place.replace('_', '-')}", **options)
        if inner:
            inside = now if isinstance(now, Mapping) else now.model_dump() if isinstance(now, inner) else {}
            sections.append((inner, inside, f"{place}."))
    for inner, inside, place in sections:
        add(parser, inner, inside, models, place)


def suggestion(flag: str, known: Iterable[str]) -> str:
    """`"; did you mean --steps?"`, or an empty string. A flag of a section may be meant by its last part."""
    # The first flag with a last part wins, so that `--steps` is not taken for `--warmup.steps`.
    table: dict[str, str] = {}
    for option in [each for each in known if each.startswith("--")]:
        table.setdefault(option[2:], option)
        table.setdefault(option[2:].rpartition(".")[2], option)
    name = flag.lstrip("-").split("=")[0].replace("_", "-").lower()
    close = [name] if name in table else difflib.get_close_matches(name, table, 1)
    last = name.rpartition(".")[2]
    close = close or ([last] if last in table else difflib.get_close_matches(last, table, 1))
    return f"; did you mean {table[close[0]]}?" if close else ""


def _kind(annotation: Any) -> Any:
    """The type without `None`; `dict` and `list` for whatever is one; `object` for a choice of types."""
    parts = [part for part in get_args(annotation) or (annotation,) if part is not NoneType]
    if get_origin(annotation) in (dict, list, tuple, set, frozenset, Literal):
        return dict if get_origin(annotation) is dict else annotation if get_origin(annotation) is Literal else list
    if len(parts) == 1 and parts[0] is not annotation:
        return _kind(parts[0])
    return annotation if isinstance(annotation, type) else object


def _metavar(kind: Any, inner: type | None) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if inner or kind in (dict, list):
        return "JSON"
    return {int: "INT", float: "FLOAT", str: "TEXT"}.get(kind, getattr(kind, "__name__", "VALUE").upper())


def _help(field: FieldInfo, now: Any, inner: type | None) -> str:
    text = flat(field.description or "")
    if inner:
        return "the whole section at once"
    if isinstance(now, BaseModel):
        now = now.model_dump(mode="json")
    now = str(now) if isinstance(now, PurePath) else now
    shown = now if isinstance(now, str) else "null" if now is None else json.dumps(now, default=str, ensure_ascii=False)
    # argparse fills in what follows a percent sign.
    return f"{text} (default: {shown})".strip().replace("%", "%%")


def _scalar(text: str) -> Any:
    return None if text == "null" else text


def _any(text: str) -> Any:
    return _loose(text) if text[:1] in "[{" else _scalar(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=_no_number)


def _mapping(text: str) -> dict[str, Any]:
    """`'{"a": 1}'`, `a=1` or `a=1,b=text`; a value that is not JSON is a text."""
    if re.match(r"[A-Za-z_][\w.]*=", text):
        pairs = (pair.partition("=") for pair in re.split(r",(?=[A-Za-z_][\w.]*=)", text))
        return {name: _loose(value) for name, _, value in pairs}
    try:
        found = _json(text)
    except ValueError as error:
        raise ValueError(f"""this is not JSON ({error}); give '{{"name": value}}', or name=value""") from None
    if not isinstance(found, dict):
        raise ValueError("""this is JSON, but not an object; give '{"name": value}', or name=value""")
    return found


def _elements(text: str) -> list[Any]:
    """`'["a", "b"]'`, or one element: `'{"a": 1}'`, or a text."""
    if not text.lstrip().startswith(("[", "{")):
        return [text]
    try:
        found = _json(text)
    except ValueError as error:
        raise ValueError(
            f"this is not JSON ({error}); give a list as JSON, or the flag once for each element"
        ) from None
    return found if isinstance(found, list) else [found]


def _loose(text: str) -> Any:
    try:
        return _json(text)
    except ValueError:
        return text
