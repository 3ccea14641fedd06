"""A real Elasticsearch: building, checking and searching an index; security; what goes wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import gymnasium as gym
import pytest

from research_env.__main__ import main
from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval import Hit, open_retriever
from research_env.retrieval.bm25 import Bm25Index
from research_env.retrieval.corpora import open_corpus
from research_env.retrieval.embedded import build_folder

pytestmark = pytest.mark.elasticsearch

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(os.environ.get("RESEARCH_TEST_ELASTICSEARCH") or ROOT.parent / "shared" / "elasticsearch")
CREDENTIALS = ("ELASTIC_API_KEY", "ELASTIC_USERNAME", "ELASTIC_PASSWORD", "ELASTIC_CA_CERTS")


@dataclass
class Cluster:
    """A running server."""

    authority: str
    """`127.0.0.1:9251`."""
    scheme: str = "elasticsearch"
    credentials: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def address(self, index: str | None = None) -> str:
        """The address of an index, by default of a new one."""
        return f"{self.scheme}://{self.authority}/{index or f'test-{uuid4().hex}'}"

    def signal(self, number: int) -> None:
        assert self.folder is not None
        os.kill(int((self.folder / "elasticsearch-8.19.21" / "pid").read_text()), number)


def started(*options: str) -> Iterator[Cluster]:
    """A server of our own, from the unpacked archive."""
    if not (SERVER / "start").is_file():
        pytest.skip(f"no Elasticsearch: set ELASTICSEARCH_URL, or RESEARCH_TEST_ELASTICSEARCH (is not at {SERVER})")
    folder = Path(tempfile.mkdtemp(prefix="elasticsearch-"))
    folder.chmod(0o755)  # the server runs as nobody
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        command = [str(SERVER / "start"), str(folder), "--port", str(port), "--heap", "512m", *options]
        out = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
        said = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
        if "--secure" in options:
            credentials = {"ELASTIC_PASSWORD": said["password"], "ELASTIC_CA_CERTS": said["ca"]}
            wait_for_credentials(port, said)
            yield Cluster(f"127.0.0.1:{port}", "elasticsearchs", credentials, folder)
        else:
            yield Cluster(f"127.0.0.1:{port}", folder=folder)
    finally:
        subprocess.run([str(SERVER / "stop"), str(folder)], capture_output=True, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_credentials(port: int, said: dict[str, str]) -> None:
    """A server that has just started answers 401 even to the right password for some seconds."""
    import elasticsearch

    client = elasticsearch.Elasticsearch(
        f"https://127.0.0.1:{port}", ca_certs=said["ca"], basic_auth=("elastic", said["password"])
    )
    for _ in range(60):
        with suppress(elasticsearch.AuthenticationException):
            client.info()
            break
        time.sleep(0.5)
    client.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`ELASTICSEARCH_URL`'s server, or one of our own."""
    url = os.environ.get("ELASTICSEARCH_URL")
    if url:
        yield Cluster(url.removeprefix("http://").rstrip("/"))
    else:
        yield from started()


@pytest.fixture(scope="module")
def own(cluster: Cluster) -> Cluster:
    if cluster.folder is None:
        pytest.skip("only a server of the tests' own may be stopped")
    return cluster


@pytest.fixture(scope="module")
def secure() -> Iterator[Cluster]:
    yield from started("--secure")


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)


WORDS = [a + b for a in ("vor", "kel", "lun", "bra", "tov", "ges") for b in ("dak", "mok", "rux", "zim", "pon")]


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [
        {"id": f"p{i}", "title": " ".join(rng.choices(WORDS, k=2)), "text": " ".join(rng.choices(WORDS, k=20))}
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "words.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(2_500)))
    return path


@pytest.fixture(scope="module")
def words(cluster: Cluster, corpus_file: Path) -> str:
    """Address of the index of `corpus_file`."""
    address = cluster.address()
    assert run("index", "build", "--corpus", corpus_file, "--to", address) == 0
    return address


def run(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def ids(found: list[Hit]) -> list[str]:
    return [hit.passage.id for hit in found]


def test_a_built_index_is_searched_and_verified(words: str, corpus_file: Path, capsys: pytest.CaptureFixture) -> None:
    retriever = open_retriever(words)
    row = rows(2_500)[7]
    (hits,) = retriever.search([f"{row['title']} {row['text']}"], 3)
    assert (hits[0].passage.id, hits[0].passage.title, hits[0].passage.text) == tuple(row.values())
    assert len(hits) == 3
    assert hits[0].score > hits[1].score >= hits[2].score
    assert retriever.corpus.passages == 2_500
    assert run("index", "verify", words, "--corpus", corpus_file) == 0
    assert f"2,500 passages, content hash {retriever.corpus.hash}: as it should be" in capsys.readouterr().out


def test_it_ranks_as_the_embedded_index_does(words: str, corpus_file: Path, tmp_path: Path) -> None:
    """Same formula, fields and constants: the same passages with the same scores."""
    build_folder(str(corpus_file), tmp_path / "index")
    embedded, remote = Bm25Index(tmp_path / "index"), open_retriever(words)
    assert embedded.corpus.hash == remote.corpus.hash
    rng = random.Random(1)
    queries = [" ".join(rng.sample(WORDS, 3)) for _ in range(30)]
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


def test_building_again_changes_nothing(words: str, corpus_file: Path, capsys: pytest.CaptureFixture) -> None:
    before = open_retriever(words).corpus
    assert run("index", "build", "--corpus", corpus_file, "--to", words) == 0
    assert open_retriever(words).corpus == before


def test_another_corpus_and_other_settings_are_refused(
    words: str, tmp_path: Path, corpus_file: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows(10, seed=9)))
    assert run("index", "build", "--corpus", other, "--to", words) == 2
    assert "of another corpus" in capsys.readouterr().err
    assert run("index", "build", "--corpus", corpus_file, "--to", words, "--k1", "0.9", "--analyser", "standard") == 2
    said = capsys.readouterr().err
    assert "k1: 1.2 there, 0.9 wanted" in said
    assert "field title, analyzer: 'english' there, 'standard' wanted" in said
    assert run("index", "verify", words, "--corpus", other) == 2
    assert "2,500 passages, but corpus other has 10" in capsys.readouterr().err


def test_a_build_that_was_killed_goes_on(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """kill -9 in the middle; until it is whole, nobody can search it."""
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(120_000)))
    address = cluster.address()
    command = [sys.executable, "-m", "research_env", "index", "build", "--corpus", str(path), "--to", address]
    victim = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = connected(address)
    name = address.rsplit("/", 1)[1]
    until = time.monotonic() + 120
    while victim.poll() is None and time.monotonic() < until:
        if client.indices.exists(index=name) and meta(client, name)["done"]:
            break
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait(60)
    about = meta(client, name)
    if about["complete"]:
        pytest.skip("the build was faster than the kill")
    assert about["done"] >= 50_000
    with pytest.raises(RetrievalError, match="its build was stopped"):
        open_retriever(address)
    assert run("index", "build", "--corpus", path, "--to", address) == 0
    assert run("index", "verify", address, "--corpus", path) == 0
    client.indices.delete(index=name)
    client.close()


def connected(address: str) -> Any:
    import elasticsearch

    return elasticsearch.Elasticsearch("http" + address.removeprefix("elasticsearch").rsplit("/", 1)[0])


def meta(client: Any, index: str) -> dict[str, Any]:
    about: dict[str, Any] = client.indices.get_mapping(index=index)[index]["mappings"]["_meta"]
    return about


def test_a_build_does_not_go_on_with_another_corpus(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As many passages with the same ids, but one of the first has changed."""
    path, address = tmp_path / "c.jsonl", cluster.address()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(3_000)))
    assert run("index", "build", "--corpus", path, "--to", address) == 0
    client, name = connected(address), address.rsplit("/", 1)[1]
    content = open_corpus(str(path))
    list(islice(content, 2_000))
    begun = {**meta(client, name), "complete": False, "done": 2_000, "hash": content.content.hexdigest()}
    client.indices.put_mapping(index=name, meta=begun)
    assert run("index", "build", "--corpus", path, "--to", address) == 0
    client.indices.put_mapping(index=name, meta=begun)
    path.write_text(path.read_text().replace(WORDS[0], WORDS[1], 1))
    assert run("index", "build", "--corpus", path, "--to", address) == 2
    assert "its first 2,000 passages were others" in capsys.readouterr().err
    client.close()


def test_a_failing_build_stops_at_once(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, address = tmp_path / "c.jsonl", cluster.address()
    with path.open("w") as file:
        file.write(json.dumps({"id": "x" * 600, "text": "an id must not be longer than 512 bytes"}) + "\n")
        file.writelines(json.dumps(row) + "\n" for row in rows(100_000))
    assert run("index", "build", "--corpus", path, "--to", address) == 2
    said = capsys.readouterr().err
    assert "status 400" in said
    assert "id [xxx" in said or "id is too long" in said
    assert said.count("\n") == 1
    client = connected(address)
    name = address.rsplit("/", 1)[1]
    client.indices.refresh(index=name)
    assert client.count(index=name)["count"] < 50_000
    client.close()


def test_aliases(cluster: Cluster, words: str, capsys: pytest.CaptureFixture, corpus_file: Path) -> None:
    """An alias of one index can be searched; of two, one would pass for both."""
    client = connected(words)
    alias = cluster.address()
    client.indices.put_alias(index=words.rsplit("/", 1)[1], name=alias.rsplit("/", 1)[1])
    assert open_retriever(alias).corpus.passages == 2_500
    assert run("index", "verify", alias) == 2
    assert "is an alias; name the index itself" in capsys.readouterr().err
    other = cluster.address()
    assert run("index", "build", "--corpus", corpus_file, "--to", other) == 0
    client.indices.put_alias(index=other.rsplit("/", 1)[1], name=alias.rsplit("/", 1)[1])
    with pytest.raises(ConfigurationError, match="is an alias of 2 indexes; name one"):
        open_retriever(alias)
    client.close()


def test_what_was_changed_behind_our_back_is_found(
    cluster: Cluster, corpus_file: Path, capsys: pytest.CaptureFixture
) -> None:
    address = cluster.address()
    assert run("index", "build", "--corpus", corpus_file, "--to", address) == 0
    client, name = connected(address), address.rsplit("/", 1)[1]
    client.update(index=name, id="p3", doc={"text": "tampered"}, refresh=True)
    assert run("index", "verify", address) == 2
    assert "content hash" in capsys.readouterr().err
    client.delete(index=name, id="p3", refresh=True)
    assert run("index", "verify", address, "--corpus", corpus_file) == 2
    assert "2,499 passages, but its own record has 2,500" in capsys.readouterr().err
    client.close()


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
def test_a_wrong_address_is_one_clear_line_before_any_work(address: str, said: str, cluster: Cluster) -> None:
    with pytest.raises((RetrievalError, ConfigurationError), match=said.replace("?", r"\?")) as caught:
        gym.make(
            "research_env:ReSearch-Synthetic-v0", corpus=address.replace("{cluster}", cluster.authority),
            disable_env_checker=True,
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_index_that_is_none_of_ours(cluster: Cluster) -> None:
    address = cluster.address()
    client = connected(address)
    client.indices.create(index=address.rsplit("/", 1)[1])
    with pytest.raises(RetrievalError, match="is not an index of passages"):
        open_retriever(address)
    client.close()


def test_a_server_of_another_major_version(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from research_env.retrieval import elasticsearch as ours

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


def test_a_server_that_stalls_is_waited_for(own: Cluster, words: str) -> None:
    retriever = open_retriever(words, timeout=0.3, deadline=30.0, cache=0)
    expected = retriever.search(["vordak"], 3)
    own.signal(signal.SIGSTOP)
    threading.Timer(2.0, own.signal, [signal.SIGCONT]).start()
    assert retriever.search(["vordak"], 3) == expected
    assert retriever.stats.retries > 0


def test_a_server_that_stalls_for_long_is_a_typed_failure(own: Cluster, words: str) -> None:
    retriever = open_retriever(words, timeout=0.2, deadline=0.5, cooldown=0.1, cache=0)
    own.signal(signal.SIGSTOP)
    try:
        with pytest.raises(RetrievalUnavailable, match=r"did not answer in time|no answer within"):
            retriever.search(["vordak"], 3)
    finally:
        own.signal(signal.SIGCONT)
    time.sleep(0.5)
    assert len(retriever.search(["vordak"], 3)[0]) == 3


def test_an_index_that_is_deleted_meanwhile(cluster: Cluster, corpus_file: Path) -> None:
    address = cluster.address()
    assert run("index", "build", "--corpus", corpus_file, "--to", address) == 0
    retriever = open_retriever(address)
    client = connected(address)
    client.indices.delete(index=address.rsplit("/", 1)[1])
    with pytest.raises(RetrievalError, match="index is gone"):
        retriever.search(["vordak"], 3)
    client.close()


def test_a_read_only_index_is_named(cluster: Cluster, corpus_file: Path, capsys: pytest.CaptureFixture) -> None:
    """What Elasticsearch does to its indexes when the disk runs full."""
    address = cluster.address()
    client = connected(address)
    assert run("index", "build", "--corpus", corpus_file, "--to", address) == 0
    name = address.rsplit("/", 1)[1]
    about = meta(client, name)
    client.indices.put_mapping(index=name, meta={**about, "complete": False, "done": 0})
    client.indices.put_settings(index=name, settings={"blocks.read_only_allow_delete": True})
    assert run("index", "build", "--corpus", corpus_file, "--to", address) == 2
    said = capsys.readouterr().err
    assert "disk is full" in said
    assert said.count("\n") == 1
    client.close()


def test_security(
    secure: Cluster, corpus_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """TLS by its own authority, a password, an API key, and each of them wrong."""
    address = secure.address()
    with pytest.raises(RetrievalError, match=r"TLS connection failed.*ELASTIC_CA_CERTS"):
        open_retriever(address)
    monkeypatch.setenv("ELASTIC_CA_CERTS", secure.credentials["ELASTIC_CA_CERTS"])
    with pytest.raises(RetrievalError, match="refuses the credentials; set ELASTIC_API_KEY"):
        open_retriever(address)
    monkeypatch.setenv("ELASTIC_PASSWORD", secure.credentials["ELASTIC_PASSWORD"])
    assert run("index", "build", "--corpus", corpus_file, "--to", address) == 0
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
