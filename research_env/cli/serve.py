"""`python -m research_env serve …`: put a retriever behind the Search-R1 and ReSearch protocols."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from research_env.errors import ConfigurationError
from research_env.loading import open_gateway
from research_env.retrieval.options import secret

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb `serve`. It sets `run`, which raises ResearchError; the caller prints it."""
    serve = subparsers.add_parser("serve", help="put a retriever behind the Search-R1 and ReSearch protocols")
    serve.add_argument(
        "--corpus", required=True, metavar="ADDRESS", help="as corpus= of gym.make, a data set's name, or module:load"
    )
    serve.add_argument("--retrieval", default="{}", metavar="JSON", help="options, as retrieval= of gym.make")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    serve.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    serve.add_argument("--top-k", type=int, default=3, help="passages a query, by default %(default)s")
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        # Imported here, because it needs an extra: fastapi and uvicorn.
        from research_env.retrieval.remote.server import listen, serve
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
    # From the environment and not from a flag: other users of the machine can read the command line of a process.
    token = secret("RESEARCH_RETRIEVAL_TOKEN")
    if arguments.host not in ("127.0.0.1", "::1", "localhost") and not token:
        print("warning: others can reach this server; set RESEARCH_RETRIEVAL_TOKEN to ask for a token", file=sys.stderr)
    # The port is opened first: building the index may take an hour, and a port that is taken must fail before that.
    with (
        listen(arguments.host, arguments.port) as listener,
        closing(open_gateway(arguments.corpus, options)) as gateway,
    ):
        corpus = gateway.corpus
        print(
            f"serving {corpus.name} ({corpus.passages:,} passages) on http://{arguments.host}:{arguments.port}; "
            "Ctrl-C stops it",
            flush=True,  # a script that started this process may be waiting for the line
        )
        serve(gateway, listener, arguments.top_k, token)
    return 0
