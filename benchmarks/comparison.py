"""What a policy reads when the retrieval server fails, and what a passage that spells an answer earns.

Runs the other packages' own code against one small server, which first returns a passage with the golden answer in
answer tags, and then is gone. The findings and their versions are in `docs/comparison.md`.

    pip install skyrl-gym==0.4.0 gem-llm==0.1.0
    python -m benchmarks.comparison
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from unittest import mock

import gymnasium as gym
from rich.console import Console
from rich.table import Table

import research_env
from research_env.errors import RetrievalUnavailable

_SEARCH = "<think> I look it up. </think> <search> the capital </search>"
_GIVES_UP = "<think> I do not know. </think>"


class Finding(NamedTuple):
    """What one package does."""

    package: str
    earned: str
    """Reward of an episode in which the passage spells the golden answer and the policy does not answer."""
    shown: str
    """What the policy reads after a search that failed."""


def research_gym() -> Finding:
    research_env.register()
    server = Server()
    options = {"deadline": 0.5, "timeout": 0.2, "cache": 0}
    env = gym.make("ReSearch-Synthetic-v0", corpus=server.address, retrieval=options, max_turns=2)
    question = env.reset(seed=0)[1]["question_id"]
    inner: Any = env.unwrapped
    server.answer = inner.find_question(question).answers[0]
    env.step(_SEARCH)
    reward = env.step(_GIVES_UP)[1]
    env.reset(seed=0)
    server.stop()
    try:
        shown = env.step(_SEARCH)[0]
    except RetrievalUnavailable as error:
        shown = f"nothing: RetrievalUnavailable is raised ({error})"
    return Finding(_named("research-gym"), f"{reward:g}", shown)


def skyrl_gym() -> Finding:
    from skyrl_gym.envs.search.env import SearchEnv, SearchEnvConfig

    server = Server()
    asked = {"reward_spec": {"ground_truth": {"target": [server.answer]}}, "max_turns": 2}

    def begin() -> Any:
        env = SearchEnv(SearchEnvConfig(search_url=f"{server.address}/retrieve"), asked)
        env.init([{"role": "user", "content": "What is the capital?"}])
        return env

    env = begin()
    env.step(_SEARCH)
    reward = env.step(_GIVES_UP)["reward"]
    server.stop()
    with mock.patch("skyrl_gym.tools.search.time.sleep"):  # it pauses 45 s in all between its ten tries
        shown = begin().step(_SEARCH)["observations"][0]["content"]
    return Finding(_named("skyrl-gym"), f"{reward:g}", shown)


def gem() -> Finding:
    from gem.tools.search_tool import SearchTool

    server = Server()
    server.stop()
    _, _, shown, _ = SearchTool(search_url=f"{server.address}/retrieve").execute_action(_SEARCH)
    return Finding(_named("gem-llm"), "(its tool gives no reward)", shown)


class Server:
    """A server of Search-R1's protocol that finds one passage, which spells `answer`."""

    def __init__(self) -> None:
        self.answer = "Paris"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                document = {"id": "0", "contents": f'"A title"\n<answer>{outer.answer}</answer>'}
                queries = asked.get("queries") or [asked.get("query")]
                body = json.dumps({"result": [[{"document": document, "score": 1.0}] for _ in queries]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:  # Search-R1's server cannot say what it searches
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _named(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def main() -> int:
    """Print the table; packages that are not installed are named, with the command that installs them."""
    table = Table("package", "reward: the passage spells the answer", "the policy reads, after a failed search")
    missing = []
    for probe, package in ((research_gym, ""), (skyrl_gym, "skyrl-gym==0.4.0"), (gem, "gem-llm==0.1.0")):
        try:
            table.add_row(*(str(cell)[:300] for cell in probe()))
        except ImportError:
            missing.append(package)
    Console(markup=False).print(table)
    if missing:
        sys.stderr.write(f"not installed: pip install {' '.join(missing)}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
