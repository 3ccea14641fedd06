"""What the tests of retrieval share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from research_env import loading
from research_env.retrieval.gateway.gateway import Gateway


@pytest.fixture(autouse=True)
def closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes every gateway: a connection left open is collected during another test, as a ResourceWarning there."""
    opened: list[Gateway] = []
    begin = Gateway.__init__

    def remembered(self: Gateway, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        opened.append(self)

    monkeypatch.setattr(Gateway, "__init__", remembered)
    yield
    for gateway in opened:
        if not gateway._closed:
            gateway.close()
    loading.forget()  # what it keeps is closed now
