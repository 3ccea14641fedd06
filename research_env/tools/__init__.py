"""Tools: what a policy can call. Searching is one of them."""

from __future__ import annotations

TOOLS: dict[str, str] = {"search": "research_env.tools.search:Search"}
"""Tool name -> `module:Class`, a `Tool`, imported when first used and called with a `Context`."""
