"""Episodes are what they were, byte for byte: texts, rewards, `info`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research_env.questions import store
from tests.research_env.golden import DIGESTS, MUSIQUE, SYNTHETIC, record

RECORDED = json.loads(DIGESTS.read_text("utf-8"))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_episodes(name: str) -> None:
    episodes, digest = RECORDED[f"synthetic: {name}"]
    assert record("ReSearch-Synthetic-v0", f"synthetic: {name}", SYNTHETIC[name], episodes)[1] == digest


@pytest.mark.parametrize("name", MUSIQUE)
def test_musique_episodes(name: str, real_data: Path) -> None:
    store.add("musique", sorted((real_data / "musique").glob("*.jsonl")))
    episodes, digest = RECORDED[f"musique: {name}"]
    assert record("ReSearch-MuSiQue-v0", f"musique: {name}", MUSIQUE[name], episodes)[1] == digest
