"""Prompts of encoders: the model's own, those that its name is known for, given ones; an index keeps them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research_env.__main__ import main
from research_env.corpora.formats import contents
from research_env.errors import ConfigurationError, RetrievalError
from research_env.retrieval import open_retriever
from research_env.retrieval.embedded.encoder import Encoder, EncoderOptions, Prompts, prompts_by_name
from research_env.types import Passage

pytest.importorskip("faiss")
pytest.importorskip("sentence_transformers")

SOME = Passage("x", "vordak", "kelmok tovzim")


@pytest.fixture(scope="module")
def with_prompts(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes an encoder whose configuration has these prompts."""
    from sentence_transformers import SentenceTransformer

    def make(default: str | None = None, **prompts: str) -> str:
        folder = tmp_path_factory.mktemp("prompted") / "tiny"
        SentenceTransformer(str(encoder), prompts=prompts, default_prompt_name=default, device="cpu").save(str(folder))
        return str(folder)

    return make


def encoded(model: str, text: str) -> np.ndarray:
    """By sentence-transformers alone, with nothing before the text."""
    from sentence_transformers import SentenceTransformer

    vector: np.ndarray = SentenceTransformer(model, device="cpu").encode(text, prompt="", normalize_embeddings=True)
    return vector


@pytest.mark.parametrize(
    ("default", "prompts", "query", "passage"),
    [
        (None, {"query": "gespon: ", "document": "lundak "}, "gespon: ", "lundak "),
        (None, {"query": "query: ", "passage": "passage: "}, "query: ", "passage: "),
        (None, {"query": "gespon ", "corpus": "lundak "}, "gespon ", "lundak "),
        (None, {"query": "gespon: "}, "gespon: ", ""),
        ("usual", {"usual": "gespon "}, "gespon ", "gespon "),
        (None, {"search_query": "gespon: ", "search_document": "lundak "}, "gespon: ", "lundak "),
        (None, {"retrieval.query": "gespon: ", "retrieval.passage": "lundak "}, "gespon: ", "lundak "),
        (None, {"query": "gespon: ", "long_query": "vordak "}, "gespon: ", ""),
    ],
)
def test_a_models_own_prompts_are_used(
    with_prompts: Any, default: str | None, prompts: dict[str, str], query: str, passage: str
) -> None:
    """The cosine with the intended form is 1."""
    model = with_prompts(default, **prompts)
    found = Encoder(EncoderOptions(model))
    assert found.prompts == Prompts(query, passage)
    assert found.queries(["tovzim"])[0] @ encoded(model, f"{query}tovzim") == pytest.approx(1.0, abs=1e-5)
    assert found.passages([SOME])[0] @ encoded(model, passage + contents(SOME)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("intfloat/e5-base-v2", ("query: ", "passage: ")),
        ("/models/multilingual-e5-large/", ("query: ", "passage: ")),
        ("BAAI/bge-base-en-v1.5", ("Represent this sentence for searching relevant passages: ", "")),
        ("sentence-transformers/all-MiniLM-L6-v2", ("", "")),
        (f"/hub/models--intfloat--e5-base-v2/snapshots/{'1c' * 20}", ("query: ", "passage: ")),
        ("me/code5-base", ("", "")),
        ("me/my.e5-small", ("query: ", "passage: ")),
        ("intfloat/e5-mistral-7b-instruct", ("", "")),
        ("me/tuned-bge-base-en-v1.5", ("Represent this sentence for searching relevant passages: ", "")),
        ("BAAI/bge-large-zh-v1.5", ("为这个句子生成表示以用于检索相关文章：", "")),
        ("BAAI/bge-m3", ("", "")),
        ("BAAI/bge-en-icl", ("", "")),
        ("/", ("", "")),
    ],
)
def test_prompts_by_name(name: str, expected: tuple[str, str]) -> None:
    assert prompts_by_name(name) == Prompts(*expected)


def test_a_name_decides_where_the_configuration_has_no_prompts(encoder: Path) -> None:
    """The fixture's name has e5 in it."""
    found = Encoder(EncoderOptions(str(encoder)))
    assert found.prompts == Prompts("query: ", "passage: ")
    assert found.queries(["tovzim"])[0] @ encoded(str(encoder), "query: tovzim") == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "prompts", [{"sts": "gespon "}, {"sts": "gespon ", "s2p_query": "vordak ", "s2s_query": "lundak "}]
)
def test_prompts_that_may_be_for_anything_are_refused(with_prompts: Any, prompts: dict[str, str]) -> None:
    model = with_prompts(**prompts)
    with pytest.raises(ConfigurationError, match=r"has prompts \(.*sts\).*give --query-prompt and --passage-prompt"):
        Encoder(EncoderOptions(model))
    assert Encoder(EncoderOptions(model, query_prompt="vordak ")).prompts == Prompts("vordak ", "")
    assert Encoder(EncoderOptions(model, query_prompt="", passage_prompt="")).prompts == Prompts("", "")
    assert Encoder(EncoderOptions(model), plain=True).prompts == Prompts("", "")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A Hub that cannot be reached; returns what it was asked for."""
    asked: list[str] = []

    def unreachable(self: Any, model: str, timeout: float) -> None:
        assert timeout <= 5
        asked.append(model)
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return asked


@pytest.mark.parametrize("model", ["/nope/x", "./nope", "models/absent", "a/b/c", "~/x", "nope/"])
def test_a_folder_that_is_not_there_is_never_asked_for(model: str, no_hub: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=f"there is no folder {model}$"):
        Encoder(EncoderOptions(model))
    assert no_hub == []


@pytest.mark.parametrize("model", ["nobody/no-such-encoder", "no-such-encoder"])
def test_a_hub_that_does_not_answer_is_asked_once(model: str, no_hub: list[str]) -> None:
    begin = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"there is no folder .*, and the Hub cannot be asked") as caught:
        Encoder(EncoderOptions(model))
    assert "\n" not in str(caught.value)
    assert no_hub == [model]
    assert time.monotonic() - begin < 10


def test_what_the_hubs_cache_has_needs_no_hub(
    with_prompts: Any, no_hub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub" / "models--me--tiny"
    shutil.copytree(with_prompts(query="gespon: "), cached / "snapshots" / ("1c" * 20))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1c" * 20)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "hub"), raising=False)
    assert Encoder(EncoderOptions("me/tiny")).prompts == Prompts("gespon: ", "")
    assert no_hub == []


def test_an_empty_encoder_is_refused(words_file: Path, tmp_path: Path, capsys: Any) -> None:
    line = ["index", "build", "--corpus", str(words_file), "--to", str(tmp_path / "i")]
    assert main([*line, "--encoder", ""]) == 2
    assert "--encoder '': give a model, or leave the flag out" in capsys.readouterr().err
    assert not (tmp_path / "i").exists()


def test_given_prompts_come_before_all_others(encoder: Path, with_prompts: Any) -> None:
    for model in (str(encoder), with_prompts(query="gespon: ", document="lundak ")):
        found = Encoder(EncoderOptions(model, query_prompt="", passage_prompt="kelmok "))
        assert found.prompts == Prompts("", "kelmok ")
        assert found.queries(["tovzim"])[0] @ encoded(model, "tovzim") == pytest.approx(1.0, abs=1e-5)


def test_an_index_keeps_its_prompts(with_prompts: Any, tmp_path: Path, words_file: Path, capsys: Any) -> None:
    """They are those of the build, whatever the model's configuration says later."""
    model = with_prompts(query="gespon: ", document="lundak ")
    command = ["index", "build", "--corpus", str(words_file), "--to", str(tmp_path / "i"), "--encoder", model]
    assert main([*command, "--passage-prompt", "kelmok "]) == 0
    about = json.loads((tmp_path / "i" / "dense" / "about.json").read_text())
    assert about["prompts"] == {"query": "gespon: ", "passage": "kelmok "}
    file = Path(model) / "config_sentence_transformers.json"
    file.write_text(file.read_text().replace("gespon", "vordak"))
    opened = open_retriever(str(tmp_path / "i"), rank="dense")
    assert opened.settings["prompts"] == about["prompts"]
    hit = opened.search(["tovzim"], 1)[0][0]
    expected = encoded(model, "gespon: tovzim") @ encoded(model, "kelmok " + contents(hit.passage))
    assert hit.score == pytest.approx(float(expected), abs=1e-5)
    assert main(command) == 0, "what is not said is as it was"
    assert main([*command, "--passage-prompt", "tovzim "]) == 2
    assert "has vectors with the prompts" in capsys.readouterr().err
    assert main([*command[:-2], "--query-prompt", "x"]) == 2
    assert "--query-prompt: needs --encoder" in capsys.readouterr().err


@pytest.mark.parametrize("content", [{}, {"config.json": "{}"}, {"config.json": "{"}, {"model.safetensors": "x"}])
def test_what_is_no_model_is_one_line(tmp_path: Path, encoder: Path, content: dict[str, str]) -> None:
    folder = tmp_path / "model"
    if content:
        shutil.copytree(encoder, folder)
    for name, text in content.items():
        (folder / name).write_text(text)
    with pytest.raises(ConfigurationError, match=r"^encoder '.*' cannot be loaded: .") as caught:
        Encoder(EncoderOptions(str(folder)))
    assert "\n" not in str(caught.value)


def test_vectors_that_are_not_numbers_are_refused(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Encoder(EncoderOptions(str(encoder)))
    monkeypatch.setattr(found._model, "encode_query", lambda texts, **_: np.full((len(texts), 32), np.nan))
    with pytest.raises(RetrievalError, match="vectors that are not finite numbers"):
        found.queries(["x"])
