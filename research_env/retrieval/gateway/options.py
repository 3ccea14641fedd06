"""The options of a gateway, and its counts."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GatewayOptions(BaseModel):
    """Options of every retriever, whatever its address."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    deadline: float = Field(30.0, gt=0)
    """Seconds a query may take once its call goes out, retries and pauses included. A query in the queue fails when
    the backend has answered nothing for this long."""
    cooldown: float = Field(5.0, gt=0)
    """Seconds between trials while the circuit is open; at most half the deadline."""
    cache: int = Field(10_000, ge=0)
    """Answers kept in memory; 0 keeps none."""
    recording: str | None = None
    """File that keeps answers from run to run."""
    mode: str = Field("cache", pattern="^(cache|record|replay)$")
    """`cache` reads and writes the recording; `record` asks the backend for everything and writes; `replay` reads, and
    never asks the backend."""

    @model_validator(mode="after")
    def _needs_a_file(self) -> GatewayOptions:
        if self.mode != "cache" and not self.recording:
            raise ValueError(f"say with recording=FILE what to {self.mode}")
        return self


@dataclass
class Stats:
    """Counts since the gateway was opened."""

    queries: int = 0
    """Queries asked of the gateway."""
    cached: int = 0
    """Of these, answered from the cache or the recording."""
    joined: int = 0
    """Of these, answered by a call that was already on its way for another."""
    sent: int = 0
    """Queries sent to the backend; a query that is tried again counts again."""
    calls: int = 0
    """Calls of the backend."""
    retries: int = 0
    """Of these, calls that tried the same queries again."""
    failed: int = 0
    """Of the queries that were neither cached nor joined, those that ended in an error."""
