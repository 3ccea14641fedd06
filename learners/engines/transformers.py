"""The transformers engine: continuous batching in plain PyTorch, where vLLM has no wheel (macOS)."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from learners.types import Completion, Sampling

if TYPE_CHECKING:
    from learners.engines.config import EngineConfig

_LONGEST = 256
"""Tokens that are looked at for a stop string, at most."""


@dataclass(eq=False)
class _Request:
    """One completion in the making."""

    prompt: list[int]
    sampling: Sampling
    budget: int
    """Tokens it may have: `sampling.max_tokens`, less where the model's length ends before."""
    random: np.random.Generator
    future: Future[Completion]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass
class _Rows:
    """Requests that are decoded together: B of them, padded on the left to W tokens."""

    requests: list[_Request]
    cache: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer, `[B, heads, W, d]`."""
    mask: Tensor
    """`[B, W]` int64: 0 on padding."""
    logits: Tensor
    """`[B, V]` of the token after the last."""


class TransformersEngine:
    """Samples with a Hugging Face model, on a thread of its own; requests join and leave between any two tokens."""

    def __init__(self, config: EngineConfig, model: str, seed: int = 0) -> None:
        """Load the model and start the thread.

        Args:
            config: Size and precision of the engine.
            model: Folder (or Hub id) in Hugging Face format: tokenizer, configuration and first weights.
            seed: Seed of the stream that requests without a seed draw from.
        """
        self._config = config
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        dtype = getattr(torch, config.dtype)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(config.device).eval()
        ends = self._model.generation_config.eos_token_id
        self._ends = set(ends) if isinstance(ends, list) else {ends}
        self._random = np.random.default_rng(seed)
        self._version = 0
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closing = False
        # Taken for each token and for each load, so that no forward pass sees weights of which only some are new.
        self._weights = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="transformers-engine", daemon=True)
        self._thread.start()

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Completion:
        budget = min(sampling.max_tokens, self._config.max_length - len(ids))
        if budget < 1 or not ids:
            raise ValueError(f"a prompt of {len(ids)} tokens: the engine takes 1 to {self._config.max_length - 1}")
        if self._closing:
            raise RuntimeError("the engine is closed")
        seed = sampling.seed if sampling.seed is not None else int(self._random.integers(2**63))
        request = _Request(list(ids), sampling, budget, np.random.default_rng(seed), Future())
        self._waiting.put(request)
        return await asyncio.wrap_future(request.future)

    async def update_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        await asyncio.to_thread(self._load, weights)
        self._version = version

    async def close(self) -> None:
        self._closing = True
        self._waiting.put(None)  # the thread may be waiting for a request
        await asyncio.to_thread(self._thread.join)

    def _load(self, weights: Mapping[str, np.ndarray]) -> None:
        state = self._model.state_dict()
        # A tied head is the embedding itself, which is why it may be absent.
        shared = {name for name in state if state[name].data_ptr() in {state[n].data_ptr() for n in weights}}
        if missing := set(state) - set(weights) - shared:
            raise ValueError(f"weights are missing: {', '.join(sorted(missing))}")
        with self._weights, torch.no_grad():
            for name, array in weights.items():
                state[name].copy_(torch.from_numpy(array))

    def _work(self) -> None:
        """The thread: admit what waits, decode one token for every row, again and again."""
        torch.set_num_threads(self._config.threads)
        rows: _Rows | None = None
        running: list[_Request] = []
        while not self._closing:
            running += self._admit(room=self._config.max_sequences - len(running), block=not running)
            try:
                with self._weights, torch.inference_mode():
                    for group in self._groups(running[len(rows.requests) if rows else 0 :]):
                        rows = _join(rows, self._prefill(group))
                    rows = self._decode(rows) if rows else None
            # Every running request fails: their rows share one cache, which cannot be trusted any more.
            except Exception as error:
                for request in running:
                    if not request.future.done():
                        request.future.set_exception(error)
                rows = None
            running = list(rows.requests) if rows else []
        while not self._waiting.empty():
            running += filter(None, [self._waiting.get()])
        for request in running:
            if not request.future.cancel():  # as it cannot be once it has begun
                request.future.set_exception(RuntimeError("the engine was closed"))

    def _admit(self, room: int, block: bool) -> list[_Request]:
        """Up to `room` requests that wait; where `block`, wait for the first."""
        admitted: list[_Request] = []
        while len(admitted) < room:
            try:
                request = self._waiting.get(block=block and not admitted)
            except queue.Empty:
                break
            if request is None:
                break
            if request.future.set_running_or_notify_cancel():
                admitted.append(request)
        return admitted

    def _groups(self, requests: Sequence[_Request]) -> Iterator[list[_Request]]:
        """Parts whose padded prompts fit into one forward pass."""
        group: list[_Request] = []
        for request in requests:
            width = max(len(r.prompt) for r in [*group, request])
            if group and width * (len(group) + 1) > self._config.max_batch_tokens:
                yield group
                group = []
            group.append(request)
        if group:
            yield group

    def _prefill(self, requests: list[_Request]) -> _Rows:
        width = max(len(request.prompt) for request in requests)
        ids = torch.tensor([[0] * (width - len(r.prompt)) + r.prompt for r in requests])
        mask = torch.tensor([[0] * (width - len(r.prompt)) + [1] * len(r.prompt) for r in requests])
        return self._forward(requests, ids, mask, [])

    def _decode(self, rows: _Rows) -> _Rows | None:
        """Sample one token for every row, settle those that end with it, and go on with the others."""
        ids, logprobs = _sample(rows)
        going = []
        for row, (request, token, logprob) in enumerate(zip(rows.requests, ids, logprobs, strict=True)):
            request.ids.append(token)
            request.logprobs.append(logprob)
            stopped = self._stopped(request)
            if stopped or len(request.ids) == request.budget:
                finish = "stop" if stopped else "length"
                request.future.set_result(Completion(request.ids, request.logprobs, finish, self._version))
            else:
                going.append(row)
        if not going:
            return None
        requests, mask, cache = [rows.requests[row] for row in going], rows.mask, rows.cache
        if len(going) < len(rows.requests):
            mask = mask[going]
            padding = int(mask.any(0).int().argmax())  # columns that only a row now gone was using
            mask = mask[:, padding:]
            cache = [(keys[going, :, padding:], values[going, :, padding:]) for keys, values in cache]
        mask = F.pad(mask, (0, 1), value=1)
        return self._forward(requests, torch.tensor([[request.ids[-1]] for request in requests]), mask, cache)

    def _forward(
        self, requests: list[_Request], ids: Tensor, mask: Tensor, cache: list[tuple[Tensor, Tensor]]
    ) -> _Rows:
        mask = mask.to(self._config.device)
        # Positions count real tokens alone: padding on the left must not shift a row.
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        past = DynamicCache(ddp_cache_data=cache) if cache else DynamicCache()
        logits = self._model(
            input_ids=ids.to(self._config.device), attention_mask=mask, position_ids=positions,
            past_key_values=past, use_cache=True, logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        return _Rows(requests, [(layer.keys, layer.values) for layer in past.layers], mask, logits)

    def _stopped(self, request: _Request) -> bool:
        if request.ids[-1] in self._ends:
            return True
        # A token is a byte at least, so a stop string that has just been finished lies in as many tokens. One more
        # stands before them, because some tokenizers drop a space in front.
        reach = max((len(stop.encode()) + 1 for stop in request.sampling.stop), default=0)
        text = self._text(request.ids[-reach:]) if reach else ""
        # Cut in the middle of a character, the text may have lost the characters behind it, too.
        while text.startswith("\N{REPLACEMENT CHARACTER}") and reach < min(len(request.ids), _LONGEST):
            reach += 1
            text = self._text(request.ids[-reach:])
        return any(stop in text for stop in request.sampling.stop)

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text


def _sample(rows: _Rows) -> tuple[list[int], list[float]]:
    """Next token of every row and its log-probability, `[B]` each. Every request draws from its own generator."""
    temperatures = [request.sampling.temperature for request in rows.requests]
    # As in vLLM, the log-probability of a greedy token is the one under temperature 1.
    scale = torch.tensor([t or 1.0 for t in temperatures], device=rows.logits.device)
    logprobs = F.log_softmax(rows.logits.float() / scale[:, None], -1)
    # Drawn below the last sum, in double precision: rounding keeps the sum of a large vocabulary from being 1.
    cumulative = logprobs.double().exp().cumsum(-1)
    draws = torch.tensor([[r.random.random()] for r in rows.requests], dtype=torch.float64, device=scale.device)
    drawn = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)[:, 0]
    greedy = torch.tensor([t == 0 for t in temperatures], device=scale.device)
    ids = torch.where(greedy, logprobs.argmax(-1), drawn.clamp(max=logprobs.shape[1] - 1))
    return ids.tolist(), logprobs.gather(1, ids[:, None])[:, 0].tolist()


def _join(rows: _Rows | None, new: _Rows) -> _Rows:
    """Both in one batch, the narrower one padded on the left."""
    if rows is None:
        return new
    width = max(rows.mask.shape[1], new.mask.shape[1])

    def padded(part: _Rows) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        more = width - part.mask.shape[1]
        cache = [(F.pad(keys, (0, 0, more, 0)), F.pad(values, (0, 0, more, 0))) for keys, values in part.cache]
        return F.pad(part.mask, (more, 0)), cache

    (mask, cache), (new_mask, new_cache) = padded(rows), padded(new)
    return _Rows(
        rows.requests + new.requests,
        [(torch.cat([k, nk]), torch.cat([v, nv])) for (k, v), (nk, nv) in zip(cache, new_cache, strict=True)],
        torch.cat([mask, new_mask]),
        torch.cat([rows.logits, new.logits]),
    )
