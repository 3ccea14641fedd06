"""Action protocols: the text of one policy turn <-> a typed action. The only place where tags are known."""

from __future__ import annotations

PROTOCOLS: dict[str, str] = {"research": "research_env.protocols.research:ResearchProtocol"}
"""Protocol name -> `module:Class`, an `ActionProtocol`, imported when first used and called with the tools."""
