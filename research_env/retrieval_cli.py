"""`python -m research_env index …` and `serve`: make, check and serve indexes."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_env.errors import ConfigurationError, RetrievalError
from research_env.plugins import load
from research_env.questions import DATASETS
from research_env.retrieval import open_retriever
from research_env.retrieval.addresses import open_pool
from research_env.retrieval.corpora import open_corpus
from research_env.retrieval.gateway import Gateway
from research_env.retrieval.options import secret

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_CORPUS = "file of passages (JSON Lines, .gz or not; HotpotQA's .tar.bz2), or a data set's name"


def add_parsers(subparsers: Subparsers) -> None:
    """Add the verbs `index` and `serve`. Each sets `run`, which raises ResearchError; to print that is the caller's."""
    index = subparsers.add_parser("index", help="make an index of a corpus, and check one")
    verbs = index.add_subparsers(metavar="VERB", required=True)

    build = verbs.add_parser("build", help="index a corpus; started again after a stop, it goes on")
    build.add_argument("--corpus", required=True, metavar="CORPUS", help=_CORPUS)
    build.add_argument("--to", required=True, metavar="PLACE", help="folder, or elasticsearch://host:9200/index")
    build.add_argument("--encoder", metavar="MODEL", help="sentence-transformers model: adds vectors")
    build.add_argument("--device", default="cpu", help="where passages are encoded; default: %(default)s")
    build.add_argument("--skip-bad-rows", action="store_true", help="pass over bad rows and count them")
    build.add_argument("--k1", type=float, help="BM25, Elasticsearch only; default: 1.2")
    build.add_argument("--b", type=float, help="BM25, Elasticsearch only; default: 0.75")
    build.add_argument("--analyser", default="english", metavar="LANGUAGE", help="default: %(default)s")
    build.add_argument("--shards", type=int, help="Elasticsearch only; default: 1")
    build.add_argument("--replicas", type=int, help="Elasticsearch only; default: 0")
    build.set_defaults(run=_build)

    verify = verbs.add_parser("verify", help="read an Elasticsearch index back and compare it with its corpus")
    verify.add_argument("address", metavar="ADDRESS", help="elasticsearch://host:9200/index")
    verify.add_argument("--corpus", metavar="CORPUS", help=_CORPUS)
    verify.add_argument("--skip-bad-rows", action="store_true", help="pass over the corpus's bad rows")
    verify.set_defaults(run=_verify)

    serve = subparsers.add_parser("serve", help="put a retriever behind the Search-R1 and ReSearch protocols")
    serve.add_argument(
        "--corpus", required=True, metavar="ADDRESS", help="as corpus= of gym.make, or a data set's name"
    )
    serve.add_argument("--retrieval", default="{}", metavar="JSON", help="options, as retrieval= of gym.make")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    serve.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    serve.add_argument("--top-k", type=int, default=3, help="where a request does not say; default: %(default)s")
    serve.set_defaults(run=_serve)


def _build(arguments: argparse.Namespace) -> int:
    to = arguments.to
    theirs = {k: v for k in ("k1", "b", "shards", "replicas") if (v := getattr(arguments, k)) is not None}
    if "://" in to:
        from research_env.retrieval.elasticsearch_index import IndexSettings, build

        reader = open_corpus(arguments.corpus, arguments.skip_bad_rows)
        settings = IndexSettings(**theirs, analyser=arguments.analyser, encoder=arguments.encoder)
        corpus, skipped = build(to, reader, settings, arguments.device), reader.skipped
    else:
        from research_env.retrieval.embedded import build_folder

        if theirs:
            raise ConfigurationError(f"--{next(iter(theirs))}: a folder's index has its own; for Elasticsearch only")
        corpus, skipped = build_folder(
            arguments.corpus, Path(to), analyser=arguments.analyser, skip_bad=arguments.skip_bad_rows,
            encoder=arguments.encoder, device=arguments.device,
        )  # fmt: skip
    left_out = f" ({skipped:,} bad rows left out)" if skipped else ""
    sys.stdout.write(f"{to}: {corpus.name}, {corpus.passages:,} passages{left_out}, content hash {corpus.hash}\n")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from research_env.retrieval.elasticsearch_index import verify

    reader = open_corpus(arguments.corpus, arguments.skip_bad_rows) if arguments.corpus else None
    corpus, problems = verify(arguments.address, reader)
    if problems:
        raise RetrievalError(f"{arguments.address}: {'; '.join(problems)}")
    sys.stdout.write(
        f"{arguments.address}: {corpus.passages:,} passages, content hash {corpus.hash}: as it should be\n"
    )
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from research_env.retrieval.server import listen, serve
    except ImportError as error:
        raise ConfigurationError(f"serve needs {error.name}: pip install 'research-gym[serve]'") from None
    try:
        options: Any = json.loads(arguments.retrieval)
    except ValueError as error:
        raise ConfigurationError(f"--retrieval {arguments.retrieval!r} is not JSON: {error}") from None
    if not isinstance(options, dict):
        raise ConfigurationError(f"--retrieval {arguments.retrieval!r} is not a JSON object")
    if not 1 <= arguments.top_k <= 100:
        raise ConfigurationError(f"--top-k {arguments.top_k}: give 1 to 100")
    if not 0 < arguments.port < 65_536:
        raise ConfigurationError(f"--port {arguments.port}: give 1 to 65535")
    token = secret("RESEARCH_RETRIEVAL_TOKEN")
    if arguments.host not in ("127.0.0.1", "::1", "localhost") and not token:
        sys.stderr.write("warning: others can reach this server; set RESEARCH_RETRIEVAL_TOKEN to ask for a token\n")
    with listen(arguments.host, arguments.port) as listener, closing(_open(arguments.corpus, options)) as gateway:
        corpus = gateway.corpus
        sys.stdout.write(
            f"serving {corpus.name} ({corpus.passages:,} passages) on http://{arguments.host}:{arguments.port}; "
            "Ctrl-C stops it\n"
        )
        sys.stdout.flush()
        serve(gateway, listener, arguments.top_k, token)
    return 0


def _open(address: str, options: dict[str, Any]) -> Gateway:
    if address in DATASETS:
        return open_pool(load(DATASETS, "dataset", address)(), options)
    return open_retriever(address, **options)
