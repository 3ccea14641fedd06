"""A retrieval server of the Search-R1 or of the ReSearch protocol, or one of ours, which speaks both."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field

from research_env.corpora.formats import split_contents
from research_env.errors import ConfigurationError, RetrievalError, RetrievalUnavailable
from research_env.retrieval.gateway.border import query_text, score
from research_env.retrieval.options import check_options, secret
from research_env.text import mended, short
from research_env.types import Corpus, Hit, Passage


class RemoteOptions(BaseModel):
    """Options of `http://` and `https://`. A bearer token is taken from the environment: `RESEARCH_RETRIEVAL_TOKEN`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    timeout: float = Field(10.0, gt=0)
    """Seconds until a request is given up."""
    protocol: Literal["search-r1", "research"] = "search-r1"
    """`search-r1`: `POST /retrieve {"queries", "topk", "return_scores"}`; `research`: `POST /batch_search {"query",
    "top_n", "return_score"}`."""


class RemoteRetriever:
    """Passages come as `{"id", "contents"}`; the contents are a title in quotes, a line end, and the text."""

    max_batch = 64
    concurrency = 4

    def __init__(self, address: str, options: RemoteOptions) -> None:
        """Ask the server what it searches; a server that cannot say is checked by a search.

        Raises:
            ConfigurationError: the address is invalid.
            RetrievalUnavailable: nothing answers there.
            RetrievalError: what answers does not speak the protocol, or refuses the token.
        """
        try:
            parts = urlsplit(address)
            host = parts.hostname if parts.port != 0 else None  # an invalid port raises ValueError when it is read
        except ValueError:
            host = None
        if not host:
            raise ConfigurationError(f"{address!r} is not the address of a server; write http://host:8000")
        self.address, self._protocol = address.rstrip("/"), options.protocol
        token = secret("RESEARCH_RETRIEVAL_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = options.timeout
        self._client = httpx.Client(timeout=options.timeout, headers=headers, trust_env=False)
        self.settings: Mapping[str, Any] = {"engine": "remote", "protocol": options.protocol, "address": self.address}
        try:
            self.corpus = self._ask_corpus()
        except BaseException:
            self._client.close()  # the caller gets no object that it could close
            raise

    def search(self, queries: Sequence[str], top_k: int) -> list[list[Hit]]:
        """See `Retriever.search`."""
        asked = [query_text(query) for query in queries]
        if self._protocol == "search-r1":
            body = {"queries": asked, "topk": top_k, "return_scores": True}
            answer = self._send("POST", "/retrieve", body)
            rows = answer.get("result") if isinstance(answer, dict) else None
        else:
            answer = self._send("POST", "/batch_search", {"query": asked, "top_n": top_k, "return_score": True})
            rows = _paired(answer)
        if not isinstance(rows, list) or len(rows) != len(asked) or not all(isinstance(row, list) for row in rows):
            raise RetrievalError(
                f"{self.address} does not speak the protocol {self._protocol}: it said {short(answer)}"
            )
        return [[self._hit(found, rank) for rank, found in enumerate(row)][:top_k] for row in rows]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask_corpus(self) -> Corpus:
        try:
            about = self._send("GET", "/corpus", None)
            self.settings = {**self.settings, "theirs": about.get("settings")}
            named = about["hash"]
            return Corpus(str(about["name"]), int(about["passages"]), None if named is None else str(named))
        except RetrievalUnavailable:
            raise
        except (RetrievalError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # Search-R1's own server has no /corpus. It must at least be able to search.
            self.search(["retrieval"], 1)
            return Corpus(self.address, 0, None)

    def _send(self, method: str, path: str, body: Any) -> Any:
        where = self.address + path
        until = time.monotonic() + self._timeout
        content = bytearray()
        try:
            with self._client.stream(method, where, json=body) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > until:  # httpx's own timeout starts again with every part that comes
                        raise httpx.ReadTimeout("the answer does not end")
        except httpx.TimeoutException:
            raise RetrievalUnavailable(f"{where} did not answer within {self._timeout:g} s") from None
        except httpx.TransportError as error:
            raise RetrievalUnavailable(f"{where} cannot be reached; is the server running? ({error})") from None
        except (httpx.InvalidURL, UnicodeError):
            raise ConfigurationError(
                f"{self.address!r} is not the address of a server; write http://host:8000"
            ) from None
        except httpx.HTTPError as error:
            raise RetrievalError(f"{where}: {error}") from None
        status, said = response.status_code, short(content.decode("utf-8", "replace"))
        if status in (408, 425, 429, 500, 502, 503, 504):
            raise RetrievalUnavailable(f"{where}: status {status} ({said})")
        if status in (401, 403):
            raise RetrievalError(f"{where} refuses the token; set RESEARCH_RETRIEVAL_TOKEN ({said})")
        if status != 200:
            raise RetrievalError(f"{where}: status {status} ({said})")
        try:
            # Not the bytes themselves: from those, `json` reads halves of surrogate pairs, which no text may hold.
            text = content.decode("utf-8-sig", "replace")
            value = json.loads(text)
            # As escapes they are legal JSON all the same.
            return json.loads(mended(json.dumps(value, ensure_ascii=False))) if "\\ud" in text.lower() else value
        except (ValueError, RecursionError):
            raise RetrievalError(f"{where} did not answer in JSON but with {said}") from None

    def _hit(self, found: Any, rank: int) -> Hit:
        """`{"document": {"id", "contents"}, "score"}`, or a document alone, which is scored by its rank."""
        inner = found.get("document") if isinstance(found, dict) else None
        document = inner if isinstance(inner, dict) else found
        if not isinstance(document, dict) or not isinstance(document.get("contents"), str):
            raise RetrievalError(f"{self.address}: {short(found)} is not a passage; it needs contents")
        title, text = split_contents(document["contents"])
        given = found.get("score") if inner is not None else None
        ident = document.get("id")  # 0 is an id; a document without one is known by its text
        passage = Passage(document["contents"][:80] if ident is None else str(ident), title, text)
        return Hit(passage, score(given, rank))


def _paired(answer: Any) -> Any:
    """ReSearch's `[documents, scores]` as Search-R1's rows; documents alone as they stand."""
    if not (isinstance(answer, list) and len(answer) == 2):
        return answer
    documents, scores = answer
    try:
        if not all(isinstance(score, int | float) for row in scores for score in row):
            return answer  # an answer without scores to two queries has the same outer shape
        return [
            [{"document": d, "score": s} for d, s in zip(row, values, strict=True)]
            for row, values in zip(documents, scores, strict=True)
        ]
    except (TypeError, ValueError):
        return answer


def open_remote(address: str, options: dict[str, Any]) -> RemoteRetriever:
    """The server at an address; see `RemoteRetriever`."""
    chosen: RemoteOptions = check_options(RemoteOptions, options, f"corpus {address!r}")
    return RemoteRetriever(address, chosen)
