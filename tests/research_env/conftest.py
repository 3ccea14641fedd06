"""A real Elasticsearch for the tests that need one, and passages to put into it."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import gymnasium as gym
import pytest

import research_env  # noqa: F401  (registers the ids)
from research_env.__main__ import main

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "elasticsearch"
SERVER = Path(os.environ.get("RESEARCH_TEST_ELASTICSEARCH") or BESIDE)
WORDS = [a + b for a in ("vor", "kel", "lun", "bra", "tov", "ges") for b in ("dak", "mok", "rux", "zim", "pon")]


@pytest.fixture
def env(musique_home: Path) -> Any:
    """`ReSearch-MuSiQue-v0` over the questions of `musique_home`."""
    return gym.make("ReSearch-MuSiQue-v0")


MakeRows = Callable[..., list[dict[str, str]]]


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

    def client(self) -> Any:
        """Elasticsearch's own client, without credentials."""
        import elasticsearch

        return elasticsearch.Elasticsearch(f"http://{self.authority}")

    def about(self, address: str) -> dict[str, Any]:
        """What the index at an address says about itself."""
        name = address.rsplit("/", 1)[1]
        client = self.client()
        try:
            found: dict[str, Any] = client.indices.get_mapping(index=name)[name]["mappings"]["_meta"]
        finally:
            client.close()
        return found

    def signal(self, number: int) -> None:
        assert self.folder is not None
        os.kill(int((self.folder / "elasticsearch-8.19.21" / "pid").read_text()), number)


def started(*options: str) -> Iterator[Cluster]:
    """A server of our own, from the unpacked archive."""
    if not (SERVER / "start").is_file():
        pytest.skip(f"no Elasticsearch: set ELASTICSEARCH_URL, or RESEARCH_TEST_ELASTICSEARCH (is not at {SERVER})")
    folder = Path(tempfile.mkdtemp(prefix="elasticsearch-"))
    folder.chmod(0o755)  # the server runs as nobody
    port = two_free_ports()
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


def two_free_ports() -> int:
    """The first of two neighbouring ports that are free: the server listens on both.

    They are below the range from which the system takes ports for outgoing connections, of which these tests make many.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port


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


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """`ELASTICSEARCH_URL`'s server, or one of our own."""
    url = os.environ.get("ELASTICSEARCH_URL")
    if url:
        yield Cluster(url.removeprefix("http://").rstrip("/"))
    else:
        yield from started()


@pytest.fixture(scope="session")
def own(cluster: Cluster) -> Cluster:
    """A server that may be stopped."""
    if cluster.folder is None:
        pytest.skip("only a server of the tests' own may be stopped")
    return cluster


@pytest.fixture(scope="session")
def secure() -> Iterator[Cluster]:
    """A server with TLS, passwords and API keys."""
    yield from started("--secure")


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """None from the user's own shell."""
    for name in ("ELASTIC_API_KEY", "ELASTIC_USERNAME", "ELASTIC_PASSWORD", "ELASTIC_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def make_rows() -> MakeRows:
    """Makes `count` passages of invented words, the same ones for the same seed."""

    def make(count: int, seed: int = 0) -> list[dict[str, str]]:
        rng = random.Random(seed)
        return [
            {"id": f"p{i}", "title": " ".join(rng.choices(WORDS, k=2)), "text": " ".join(rng.choices(WORDS, k=20))}
            for i in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def words_file(make_rows: MakeRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,500 such passages as JSON lines."""
    path = tmp_path_factory.mktemp("corpus") / "words.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(2_500)))
    return path


@pytest.fixture(scope="session")
def words(cluster: Cluster, words_file: Path) -> str:
    """Address of the index of `words_file`."""
    address = cluster.address()
    assert main(["index", "build", "--corpus", str(words_file), "--to", address]) == 0
    return address


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer BERT with random weights and those words as its vocabulary, in Hugging Face format."""
    pytest.importorskip("sentence_transformers")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-e5")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", "passage", ":", '"', *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).eval().save_pretrained(folder)
    return folder
