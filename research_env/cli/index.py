"""`python -m research_env index …`: build an index of a corpus, and verify one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from research_env.errors import ConfigurationError, RetrievalError
from research_env.loading import open_corpus
from research_env.progress import note
from research_env.retrieval.elasticsearch import index as elasticsearch_index
from research_env.retrieval.embedded.encoder import Encoder, EncoderOptions
from research_env.retrieval.embedded.folder import build_folder
from research_env.retrieval.embedded.verify import verify_folder

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_CORPUS = "file of passages (JSON Lines, .gz or not; HotpotQA's .tar.bz2), a data set's name, or module:load"


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb `index` with its own verbs. Each sets `run`, which raises ResearchError; the caller prints it."""
    index = subparsers.add_parser("index", help="make an index of a corpus, and check one")
    verbs = index.add_subparsers(metavar="VERB", required=True)

    build = verbs.add_parser("build", help="index a corpus; a build that was stopped goes on")
    build.add_argument("--corpus", required=True, metavar="CORPUS", help=_CORPUS)
    build.add_argument("--to", required=True, metavar="PLACE", help="folder, or elasticsearch://host:9200/index")
    build.add_argument("--encoder", metavar="MODEL", help="sentence-transformers model: adds vectors")
    build.add_argument("--query-prompt", metavar="TEXT", help="before each query; default: the model's own, if any")
    build.add_argument("--passage-prompt", metavar="TEXT", help="before each passage; default: the model's own, if any")
    build.add_argument("--device", default="cpu", help="where passages are encoded; default: %(default)s")
    build.add_argument("--skip-bad-rows", action="store_true", help="leave out bad rows and count them")
    # These have no defaults, so that one that is given for a folder can be told from one that is not, and refused.
    build.add_argument("--k1", type=float, help="BM25, Elasticsearch only; default: 1.2")
    build.add_argument("--b", type=float, help="BM25, Elasticsearch only; default: 0.75")
    build.add_argument("--analyser", default="english", metavar="LANGUAGE", help="default: %(default)s")
    build.add_argument("--shards", type=int, help="Elasticsearch only; default: 1")
    build.add_argument("--replicas", type=int, help="Elasticsearch only; default: 0")
    build.set_defaults(run=_build)

    verify = verbs.add_parser("verify", help="read an index back and compare it with its corpus")
    verify.add_argument("address", metavar="ADDRESS", help="folder, or elasticsearch://host:9200/index")
    verify.add_argument("--corpus", metavar="CORPUS", help=_CORPUS)
    verify.add_argument("--skip-bad-rows", action="store_true", help="leave out the corpus's bad rows")
    verify.set_defaults(run=_verify)


def _build(arguments: argparse.Namespace) -> int:
    to, device = arguments.to, arguments.device
    given = {k: v for k in ("k1", "b", "shards", "replicas") if (v := getattr(arguments, k)) is not None}
    in_cluster = "://" in to  # any scheme: `connect` refuses a wrong one, and shows the right form
    if given and not in_cluster:
        raise ConfigurationError(f"--{next(iter(given))}: for Elasticsearch only; a folder's index has fixed values")
    if arguments.encoder == "":
        raise ConfigurationError("--encoder '': give a model, or leave the flag out for BM25 alone")
    prompts = {name: getattr(arguments, name) for name in ("query_prompt", "passage_prompt")}
    if not arguments.encoder and (name := next((n for n, text in prompts.items() if text is not None), None)):
        raise ConfigurationError(f"--{name.replace('_', '-')}: needs --encoder")
    encoder = EncoderOptions(arguments.encoder, device, **prompts) if arguments.encoder else None
    reader = open_corpus(arguments.corpus, arguments.skip_bad_rows)
    try:
        if in_cluster:
            settings = elasticsearch_index.IndexSettings(**given, analyser=arguments.analyser)
            corpus = elasticsearch_index.build(to, reader, settings, Encoder(encoder) if encoder else None)
            skipped = reader.skipped
        else:
            corpus, skipped = build_folder(reader, Path(to), analyser=arguments.analyser, encoder=encoder)
    except KeyboardInterrupt:
        if in_cluster or encoder:
            note("stopped; the same command goes on from here")
        raise
    left_out = f" ({skipped:,} bad rows left out)" if skipped else ""
    print(f"{to}: {corpus.name}, {corpus.passages:,} passages{left_out}, content hash {corpus.hash}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    reader = open_corpus(arguments.corpus, arguments.skip_bad_rows) if arguments.corpus else None
    address = arguments.address
    if "://" in address:
        corpus, problems = elasticsearch_index.verify(address, reader)
    else:
        corpus, problems = verify_folder(Path(address), reader)
    if problems:
        raise RetrievalError(f"{address}: {'; '.join(problems)}")
    print(f"{address}: {corpus.passages:,} passages, content hash {corpus.hash}: all as it should be")
    return 0
