"""Algorithms: how rewards become credit, and how tokens become a loss. One algorithm a file."""

from __future__ import annotations

ALGORITHMS: dict[str, str] = {
    "grpo": "learners.algorithms.grpo:GRPO",
}
"""Algorithm name -> `module:Class`, an `Algorithm`, imported when first used. These files load without torch."""
