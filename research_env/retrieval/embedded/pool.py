"""The passages that come with a data set, in an embedded index that is built at first use."""

from __future__ import annotations

from typing import Any

from research_env.files import home
from research_env.retrieval.embedded.bm25 import open_or_build
from research_env.retrieval.gateway.gateway import Gateway
from research_env.retrieval.gateway.options import GatewayOptions
from research_env.retrieval.gateway.recording import Replay
from research_env.retrieval.options import check_options
from research_env.types import Pool


def open_pool(pool: Pool, options: dict[str, Any]) -> Gateway:
    """The index of a pool, behind a gateway.

    Raises:
        ConfigurationError: an option cannot work.
        RetrievalError: the index cannot be built or read.
    """
    chosen = check_pool_options(options)
    if chosen.mode == "replay":
        return Gateway(Replay(chosen.recording or ""), chosen)
    index = open_or_build(home() / "indexes", pool)
    return Gateway(index, chosen)


def check_pool_options(options: dict[str, Any]) -> GatewayOptions:
    """A pool's options: those of the gateway and no others."""
    return check_options(GatewayOptions, options, "retrieval of a pool")
