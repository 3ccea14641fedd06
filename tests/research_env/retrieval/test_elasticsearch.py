"""A real Elasticsearch: searching an index, security, addresses that are wrong, servers that stall."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from research_env.__main__ import main
from research_env.corpora.reader import open_file
from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval import open_retriever
from research_env.retrieval.embedded.bm25 import Bm25Index
from research_env.retrieval.embedded.folder import build_folder
from research_env.retrieval.fusion import reciprocal_rank
from research_env.types import Hit

pytestmark = [pytest.mark.elasticsearch, pytest.mark.usefixtures("no_credentials")]


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def ids(found: list[Hit]) -> list[str]:
    return [hit.passage.id for hit in found]


def test_a_built_index_is_searched_and_verified(
    words: str, words_file: Path, make_rows: Any, capsys: pytest.CaptureFixture
) -> None:
    retriever = open_retriever(words)
    row = make_rows(2_500)[7]
    (hits,) = retriever.search([f"{row['title']} {row['text']}"], 3)
    assert (hits[0].passage.id, hits[0].passage.title, hits[0].passage.text) == tuple(row.values())
    assert len(hits) == 3
    assert hits[0].score > hits[1].score >= hits[2].score
    assert retriever.corpus.passages == 2_500
    assert run("index", "verify", words, "--corpus", words_file) == 0
    assert f"2,500 passages, content hash {retriever.corpus.hash}: all as it should be" in capsys.readouterr().out


def test_it_ranks_as_the_embedded_index_does(words: str, words_file: Path, make_rows: Any, tmp_path: Path) -> None:
    """Same formula, fields and constants: the same passages with the same scores."""
    build_folder(open_file(words_file), tmp_path / "index")
    embedded, remote = Bm25Index(tmp_path / "index"), open_retriever(words)
    assert embedded.corpus.hash == remote.corpus.hash
    rng = random.Random(1)
    vocabulary = sorted({word for row in make_rows(100) for word in row["text"].split()})
    queries = [" ".join(rng.sample(vocabulary, 3)) for _ in range(30)]
    for ours, theirs in zip(embedded.search(queries, 5), remote.search(queries, 5), strict=True):
        assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], rel=1e-4)


@pytest.mark.parametrize("query", ["", " \n", "the of and", "?!", "\0", "\ud800", "zzzz", "x" * 100_000])
def test_queries_that_find_nothing(words: str, query: str) -> None:
    assert open_retriever(words).search([query], 5) == [[]]


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("-vordak", "vordak"),
        ("vordak AND NOT kelmok", "vordak kelmok"),
        ("title: vordak*~2^3", "title vordak 2 3"),
        ('"vordak', "vordak"),
    ],
)
def test_no_query_syntax_leaks_in(words: str, query: str, same: str) -> None:
    retriever = open_retriever(words)
    assert ids(retriever.search([query], 5)[0]) == ids(retriever.search([same], 5)[0])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("elasticsearch://127.0.0.1:1/x", "cannot be reached; is Elasticsearch running there?"),
        ("elasticsearch://127.0.0.1:1", "write elasticsearch://host:9200/index"),
        ("elasticsearch://elastic:secret@127.0.0.1:1/x", "leave credentials out of the address"),
        ("elasticsearch:///x", "write elasticsearch://host:9200/index"),
        ("elasticsearch://host:99999/x", "write elasticsearch://host:9200/index"),
        ("elasticsearch://{cluster}/no-such-index", "there is no such index; build it: python -m research_env"),
        ("elasticsearchs://{cluster}/x", "TLS connection failed"),
    ],
)
def test_a_wrong_address_is_one_clear_line_before_any_work(address: str, said: str, cluster: Any) -> None:
    with pytest.raises((RetrievalError, ConfigurationError), match=said.replace("?", r"\?")) as caught:
        gym.make(
            "research_env:ReSearch-Synthetic-v0", corpus=address.replace("{cluster}", cluster.authority),
            disable_env_checker=True,
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_index_that_is_none_of_ours(cluster: Any) -> None:
    address = cluster.address()
    client = cluster.client()
    client.indices.create(index=address.rsplit("/", 1)[1])
    with pytest.raises(RetrievalError, match="is not an index of passages"):
        open_retriever(address)
    client.close()


def test_a_server_of_another_major_version(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from research_env.retrieval.elasticsearch import client as ours

    monkeypatch.setattr(ours, "version", lambda _: "9.1.0")
    with pytest.raises(ConfigurationError, match=r"client here is 9\.1\.0: pip install 'elasticsearch>=8,<9'"):
        open_retriever(words)


def test_an_episode_over_a_cluster(words: str) -> None:
    env = gym.make("research_env:ReSearch-Synthetic-v0", corpus=words, top_k=2, disable_env_checker=True)
    _, info = env.reset(seed=0)
    assert info["corpus"]["passages"] == 2_500
    assert info["corpus"]["hash"]
    text, *_, info = env.step("<think> x </think> <search> vordak kelmok </search>")
    assert len(info["passages"]) == 2
    assert "<result>" in text


def test_a_server_that_stalls_is_waited_for(own: Any, words: str) -> None:
    retriever = open_retriever(words, timeout=0.3, deadline=30.0, cache=0)
    expected = retriever.search(["vordak"], 3)
    own.signal(signal.SIGSTOP)
    threading.Timer(2.0, own.signal, [signal.SIGCONT]).start()
    assert retriever.search(["vordak"], 3) == expected
    assert retriever.stats.retries > 0


def test_a_server_that_stalls_for_long_is_a_typed_failure(own: Any, words: str) -> None:
    retriever = open_retriever(words, timeout=0.2, deadline=0.5, cooldown=0.1, cache=0)
    own.signal(signal.SIGSTOP)
    try:
        with pytest.raises(RetrievalUnavailable, match=r"did not answer in time|no answer within"):
            retriever.search(["vordak"], 3)
    finally:
        own.signal(signal.SIGCONT)
    time.sleep(0.5)
    assert len(retriever.search(["vordak"], 3)[0]) == 3


def test_an_index_that_is_deleted_meanwhile(cluster: Any, words_file: Path) -> None:
    address = cluster.address()
    assert run("index", "build", "--corpus", words_file, "--to", address) == 0
    retriever = open_retriever(address)
    client = cluster.client()
    client.indices.delete(index=address.rsplit("/", 1)[1])
    with pytest.raises(RetrievalError, match="index is gone"):
        retriever.search(["vordak"], 3)
    client.close()


def test_vectors_in_the_cluster(cluster: Any, words_file: Path, encoder: Path, tmp_path: Path) -> None:
    """Nearest neighbours as the embedded index has them, which is exact, and their fusion with BM25."""
    address, folder = cluster.address(), tmp_path / "index"
    for place in (address, folder):
        assert run("index", "build", "--corpus", words_file, "--to", place, "--encoder", encoder) == 0
    queries = ["vordak kelmok", "gespon tovzim lundak", ""]
    dense = open_retriever(address, rank="dense").search(queries, 50)
    exact = open_retriever(str(folder), rank="dense").search(queries, 50)
    assert [len(hits) for hits in dense] == [50, 50, 0]
    for theirs, ours in zip(dense[:2], exact[:2], strict=True):
        # The cluster keeps vectors in eight bits, and its score is (1 + cosine) / 2.
        assert len({*ids(theirs)} & {*ids(ours)}) >= 40
        assert 2 * theirs[0].score - 1 == pytest.approx(ours[0].score, abs=0.01)
    terms = open_retriever(address).search(queries, 50)
    fused = open_retriever(address, rank="hybrid").search(queries, 5)
    assert fused == [reciprocal_rank(both, 5) for both in zip(terms, dense, strict=True)]


def test_vectors_that_an_index_does_not_have(words: str) -> None:
    with pytest.raises(ConfigurationError, match="built without --encoder"):
        open_retriever(words, rank="hybrid")


def test_security(
    secure: Any, words_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """TLS by its own authority, a password, an API key, and each of them wrong."""
    address = secure.address()
    with pytest.raises(RetrievalError, match=r"TLS connection failed.*ELASTIC_CA_CERTS"):
        open_retriever(address)
    monkeypatch.setenv("ELASTIC_CA_CERTS", secure.credentials["ELASTIC_CA_CERTS"])
    with pytest.raises(RetrievalError, match="refuses the credentials; set ELASTIC_API_KEY"):
        open_retriever(address)
    monkeypatch.setenv("ELASTIC_PASSWORD", secure.credentials["ELASTIC_PASSWORD"])
    assert run("index", "build", "--corpus", words_file, "--to", address) == 0
    expected = open_retriever(address).search(["vordak"], 3)
    monkeypatch.setenv("ELASTIC_PASSWORD", "wrong-password")
    with pytest.raises(RetrievalError, match="refuses the credentials") as caught:
        open_retriever(address)
    assert "wrong-password" not in str(caught.value)

    import elasticsearch

    client = elasticsearch.Elasticsearch(
        f"https://{secure.authority}", ca_certs=secure.credentials["ELASTIC_CA_CERTS"],
        basic_auth=("elastic", secure.credentials["ELASTIC_PASSWORD"]),
    )  # fmt: skip
    key = client.security.create_api_key(name="test")["encoded"]
    client.close()
    monkeypatch.delenv("ELASTIC_PASSWORD")
    monkeypatch.setenv("ELASTIC_API_KEY", key)
    assert open_retriever(address).search(["vordak"], 3) == expected
    monkeypatch.setenv("ELASTIC_CA_CERTS", "/no/such/file")
    with pytest.raises(ConfigurationError, match="ELASTIC_CA_CERTS"):
        open_retriever(address)
    plain = secure.address().replace("elasticsearchs", "elasticsearch")
    monkeypatch.delenv("ELASTIC_CA_CERTS")
    with pytest.raises(RetrievalError, match=r"cannot be reached|TLS|status"):
        open_retriever(plain)
