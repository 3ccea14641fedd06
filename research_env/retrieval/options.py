"""Options and secrets of retrievers, checked so that no message holds a secret."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from research_env import wording
from research_env.errors import ConfigurationError

M = TypeVar("M", bound=BaseModel)


def check_options(model: type[M], given: dict[str, Any], where: str) -> M:
    """`given` as a `model`.

    Raises:
        ConfigurationError: an option is unknown or cannot work.
    """
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
    name = wording.place(first)
    if first["type"] == "extra_forbidden":  # its value may be a secret
        raise ConfigurationError(f"{where}: option {name} is unknown; known: {', '.join(model.model_fields)}")
    what = f"option {name}={first['input']!r}: " if name else ""
    raise ConfigurationError(f"{where}: {what}{wording.fault(first)}")


def check_no_secret(address: str) -> None:
    """Raises ConfigurationError for an address that may hold credentials, before anything quotes it."""
    scheme, separator, rest = address.partition("://")
    # By characters, not by a parser: a malformed address may hold a secret just as well.
    mark = next((mark for mark in "@?#" if mark in rest), None)
    if separator and mark:
        raise ConfigurationError(
            f"{scheme}://…{mark}…: an address ends with its path; leave credentials out of the address, they belong in "
            "environment variables: ELASTIC_API_KEY, or ELASTIC_USERNAME and ELASTIC_PASSWORD; RESEARCH_RETRIEVAL_TOKEN"
        )


def secret(variable: str) -> str | None:
    """The value of an environment variable, without the line end that a secret's file often has; None where unset.

    Raises:
        ConfigurationError: no HTTP header can hold it; the message names the variable alone.
    """
    value = os.environ.get(variable, "").strip()
    # An HTTP client would quote the whole header, and so the secret, in its error.
    if not (value.isascii() and value.isprintable()):
        raise ConfigurationError(f"{variable} holds characters that are not printable ASCII")
    return value or None
