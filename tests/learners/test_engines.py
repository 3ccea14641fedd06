"""Every engine on one tiny model with random weights, against plain Hugging Face and against the trainer's model."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learners.engines import ENGINES, Engine
from learners.engines.config import EngineConfig
from learners.engines.transformers import TransformersEngine
from learners.packed_model import load_model, token_logprobs
from learners.packing import pack
from learners.transcript import Transcript
from learners.types import Completion, Sampling, Status

T = TypeVar("T")
TOLERANCE = 1e-5  # nats, mean absolute difference in float32


@dataclass
class Running:
    """An engine and the event loop it lives in."""

    engine: Engine
    loop: asyncio.AbstractEventLoop
    folder: Path

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 240))

    def generate(self, ids: list[int], sampling: Sampling) -> Completion:
        return self.wait(self.engine.generate(ids, sampling))

    def all(self, requests: list[tuple[list[int], Sampling]]) -> list[Completion]:
        async def together() -> list[Completion]:
            return list(await asyncio.gather(*(self.engine.generate(ids, sampling) for ids, sampling in requests)))

        return self.wait(together())


@pytest.fixture(scope="module", params=list(ENGINES))
def running(request: pytest.FixtureRequest, tiny_folder: Path) -> Iterator[Running]:
    """Each engine in turn, started once for the whole module."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed on this machine")
    config = EngineConfig(kind=request.param, threads=1, max_length=256, max_sequences=32, cache_gib=0.1)
    module, name = ENGINES[request.param].split(":")
    # What the rollout actor sets in a run: threads that spin while idle would slow all other tests.
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "VLLM_NO_USAGE_STATS": "1"}.items():
            patch.setenv(key, os.environ.get(key, value))
        loop = asyncio.new_event_loop()

        async def start() -> Engine:
            return getattr(import_module(module), name)(config, str(tiny_folder))

        engine = loop.run_until_complete(start())
        yield Running(engine, loop, tiny_folder)
        loop.run_until_complete(engine.close())
        loop.close()


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def prompts(tokenizer: Any, model: Any, texts: list[str]) -> list[list[int]]:
    """Six prompts, 5 to 30 tokens long, after which greedy decoding meets no near tie and no end within 24 tokens."""
    found: list[list[int]] = []
    for text in texts[:6]:
        for start in range(20):
            ids = tokenizer.encode(text)[start : start + 5 * (len(found) + 1)]
            continuation, lead = greedy(model, ids, 24)
            if lead > 0.01 and tokenizer.eos_token_id not in continuation:
                found.append(ids)
                break
    assert len(found) == 6
    return found


def greedy(model: Any, ids: list[int], tokens: int) -> tuple[list[int], float]:
    """Plain greedy decoding, the whole sequence anew for each token, and the smallest lead over a second best, nats."""
    sequence, lead = list(ids), float("inf")
    for _ in range(tokens):
        with torch.no_grad():
            best = model(torch.tensor([sequence]), use_cache=False).logits[0, -1].topk(2)
        sequence.append(int(best.indices[0]))
        lead = min(lead, float(best.values[0] - best.values[1]))
    return sequence[len(ids) :], lead


def trainer_logprobs(folder: Path, prompt: list[int], completion: Completion, temperature: float) -> np.ndarray:
    """Log-probabilities of the completion's tokens as the trainer has them."""
    transcript = Transcript(prompt)
    transcript.act(completion)
    trajectory = transcript.finish(status=Status.TERMINATED, seed=0)
    (batch,) = pack([trajectory], 1_000)
    with torch.no_grad():
        return token_logprobs(load_model(str(folder), torch.float32, "cpu"), batch, temperature).numpy()


def test_greedy_is_what_hugging_face_decodes(running: Running, model: Any, prompts: list[list[int]]) -> None:
    sampling = Sampling(temperature=0.0, max_tokens=24)
    completions = running.all([(prompt, sampling) for prompt in prompts])
    for prompt, completion in zip(prompts, completions, strict=True):
        assert list(completion.ids) == greedy(model, prompt, 24)[0]
        assert completion.finish == "length"


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_logprobs_are_the_trainers(running: Running, prompts: list[list[int]], temperature: float) -> None:
    """Under the distribution sampled from: the temperature is in them."""
    requests = [(prompt, Sampling(temperature, 24, seed=7 + i)) for i, prompt in enumerate(prompts)]
    for (prompt, _), completion in zip(requests, running.all(requests), strict=True):
        assert len(completion.logprobs) == len(completion.ids)
        expected = trainer_logprobs(running.folder, prompt, completion, temperature)
        assert np.abs(np.array(completion.logprobs) - expected).mean() < TOLERANCE


def test_logprobs_of_greedy_tokens_are_under_temperature_one(running: Running, prompts: list[list[int]]) -> None:
    """A greedy request beside sampled ones, and alone."""
    mixed = running.all([(prompts[3], Sampling(0.0, 12)), (prompts[2], Sampling(1.0, 12, seed=1))])[0]
    alone = running.generate(prompts[3], Sampling(0.0, 12))
    assert list(mixed.ids) == list(alone.ids)
    for completion in (mixed, alone):
        expected = trainer_logprobs(running.folder, prompts[3], completion, 1.0)
        assert np.abs(np.array(completion.logprobs) - expected).mean() < TOLERANCE


def until(running: Running, tokenizer: Any, prompts: list[list[int]], stop: str) -> Completion:
    """The first of many sampled completions that ended before its length, with a check that none ran past `stop`."""
    sampling = [Sampling(1.3, 60, (stop,), seed) for seed in range(48)]
    completions = running.all([(prompts[seed % len(prompts)], one) for seed, one in enumerate(sampling)])
    ended = []
    for completion in completions:
        text = tokenizer.decode(completion.ids)
        assert stop not in tokenizer.decode(completion.ids[:-1]), "sampling went on after the stop string"
        if stop in text:
            assert completion.finish == "stop"
            ended.append(completion)
        elif completion.finish == "length":
            assert len(completion.ids) == 60
    assert ended, f"no completion came to {stop!r}"
    return ended[0]


def test_a_tag_ends_a_completion_and_belongs_to_it(
    running: Running, tokenizer: Any, prompts: list[list[int]], model: Any
) -> None:
    completion = until(running, tokenizer, prompts, "</search>")
    assert completion.ids[-1] == tokenizer.convert_tokens_to_ids("</search>")


def test_a_stop_string_of_several_tokens_ends_a_completion_and_belongs_to_it(
    running: Running, tokenizer: Any, model: Any, prompts: list[list[int]]
) -> None:
    """The string is cut from what greedy decoding says anyway, so that it is certain to come."""
    prompt, expected, stop = next(
        (prompt, said, text)
        for prompt in prompts
        for said in [greedy(model, prompt, 24)[0]]
        for at in range(3, 20)
        if (text := tokenizer.decode(said[at : at + 3])).isascii() and text.isprintable() and len(text) > 3
    )
    assert len(tokenizer.encode(stop)) > 1
    completion = running.generate(prompt, Sampling(0.0, 24, (stop, "never said")))
    ids = list(completion.ids)
    assert ids == expected[: len(ids)]
    assert len(ids) == min(n for n in range(1, 25) if stop in tokenizer.decode(expected[:n]))
    assert completion.finish == "stop"


def test_a_stop_string_inside_a_longer_token_ends_a_completion(
    running: Running, tokenizer: Any, prompts: list[list[int]]
) -> None:
    """ "e" is a token, and so is " the": the ids end with whatever token has it, whole and as sampled."""
    assert len(tokenizer.encode("e")) == 1
    sampling = Sampling(1.3, 60, seed=3)
    whole = [list(running.generate(prompt, sampling).ids) for prompt in prompts]
    stopped = [running.generate(prompt, replace(sampling, stop=("e", "never said"))) for prompt in prompts]
    for ids, completion in zip(whole, stopped, strict=True):
        first = next((n for n in range(1, len(ids) + 1) if "e" in tokenizer.decode(ids[:n])), len(ids))
        assert list(completion.ids) == ids[:first]
    assert any(c.finish == "stop" and tokenizer.decode(c.ids[-1]) != "e" for c in stopped)


def test_a_stop_string_in_pieces_ends_a_completion(running: Running, tokenizer: Any, prompts: list[list[int]]) -> None:
    """It is a token of its own, but is sampled as two others."""
    sampling = [Sampling(1.3, 60, seed=seed) for seed in range(24)]
    completions = running.all([(prompts[at % 6], one) for at, one in enumerate(sampling)])
    known = {tokenizer.decode(token): token for token in range(len(tokenizer))}
    at, end, stop = next(
        (at, n + 2, pair)
        for at, completion in enumerate(completions)
        for n in range(len(completion.ids) - 1)
        if (pair := tokenizer.decode(completion.ids[n : n + 2])) in known and pair.isascii() and len(pair) > 1
        if pair not in tokenizer.decode(completion.ids[: n + 1])
    )
    assert len(tokenizer.encode(stop)) == 1
    completion = running.generate(prompts[at % 6], replace(sampling[at], stop=(stop,)))
    assert (list(completion.ids), completion.finish) == (list(completions[at].ids)[:end], "stop")


def test_a_stop_string_as_the_last_token_that_fits_is_a_stop(
    running: Running, tokenizer: Any, model: Any, prompts: list[list[int]]
) -> None:
    """Both at the limit of the turn and at the length of the model."""
    said = greedy(model, prompts[5], 12)[0]
    end = next(n for n in range(2, 13) if tokenizer.decode(said[n - 1]).strip())
    stop = (tokenizer.decode(said[:end])[-2:],)
    whole = running.generate(prompts[5], Sampling(0.0, end, stop))
    cut = running.generate(prompts[5], Sampling(0.0, end - 1, ("never said",)))
    assert (len(cut.ids), cut.finish) == (end - 1, "length")
    assert whole.finish == "stop"


@pytest.mark.parametrize("stop", [("",), ("a", ""), "abc"])
def test_no_stop_string_is_empty(stop: Any) -> None:
    with pytest.raises(ValueError, match="none of them empty"):
        Sampling(1.0, 5, stop)


def test_characters_of_several_tokens_are_seen_whole(tokenizer: Any) -> None:
    """Three bytes each: the stop string is there with the last byte, wherever what is looked at begins."""
    pieces = tokenizer.encode("€€→")
    assert len(pieces) == 9
    request = SimpleNamespace(ids=[], sampling=Sampling(1.0, 9, ("→",)))
    engine = SimpleNamespace(_ends=set(), _text=lambda ids: tokenizer.decode(ids))
    found = []
    for piece in pieces:
        request.ids.append(piece)
        found.append(TransformersEngine._stopped(engine, request))  # type: ignore[arg-type]
    assert found == [False] * 8 + [True]


def test_end_of_sequence_ends_a_completion_and_belongs_to_it(
    running: Running, tokenizer: Any, prompts: list[list[int]]
) -> None:
    """At so high a temperature every token is about as likely, and some of many completions draw it."""
    completions = running.all([(prompts[seed % 6], Sampling(2.0, 200, seed=seed)) for seed in range(24)])
    ended = [completion for completion in completions if completion.finish == "stop"]
    assert ended
    for completion in completions:
        at = [i for i, token in enumerate(completion.ids) if token == tokenizer.eos_token_id]
        assert at == ([len(completion.ids) - 1] if completion.finish == "stop" else [])


def test_a_seed_decides_the_completion(running: Running, prompts: list[list[int]]) -> None:
    def sample(seed: int | None) -> list[int]:
        return list(running.generate(prompts[4], Sampling(1.0, 24, seed=seed)).ids)

    assert sample(11) == sample(11)
    assert len({tuple(sample(seed)) for seed in (11, 12, None, None)}) == 4


def test_sampling_follows_the_distribution(running: Running, model: Any, prompts: list[list[int]]) -> None:
    """Frequencies of the first token over 2,000 samples; the bound is five standard deviations of the worst case."""
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([prompts[0]])).logits[0, -1] / 0.5, -1).numpy()
    completions = running.all([(prompts[0], Sampling(0.5, 1, seed=seed)) for seed in range(2_000)])
    frequencies = np.bincount([completion.ids[0] for completion in completions], minlength=len(expected)) / 2_000
    assert np.abs(frequencies - expected).max() < 5 * np.sqrt(0.25 / 2_000)


def test_many_requests_at_once_do_not_disturb_each_other(
    running: Running, model: Any, prompts: list[list[int]]
) -> None:
    """More than the engine takes at once, of different prompts and lengths: each is answered as if it were alone."""
    lengths = [3 + i % 20 for i in range(100)]
    requests = [(prompts[i % 6], Sampling(0.0, length)) for i, length in enumerate(lengths)]
    expected = [greedy(model, prompt, 24)[0] for prompt in prompts]
    for i, completion in enumerate(running.all(requests)):
        assert list(completion.ids) == expected[i % 6][: lengths[i]]


def test_the_models_length_bounds_a_completion(running: Running, prompts: list[list[int]]) -> None:
    long = (prompts[5] * 10)[:250]
    completion = running.generate(long, Sampling(1.0, 50, seed=1))
    assert len(completion.ids) <= 6
    assert completion.finish in ("length", "stop")


def test_weights_are_updated_in_memory(running: Running, model: Any, prompts: list[list[int]]) -> None:
    """New weights change what is said, to what a model with these weights says; the version is on each completion."""
    sampling = Sampling(0.0, 16)
    first = running.generate(prompts[3], sampling)
    old = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    changed = AutoModelForCausalLM.from_pretrained(running.folder, dtype=torch.float32).eval()
    for seed in range(50):  # until greedy decoding with the new weights meets no near tie
        rng = np.random.default_rng(seed)
        new = {name: array + rng.normal(0, 0.05, array.shape).astype(np.float32) for name, array in old.items()}
        changed.load_state_dict({name: torch.from_numpy(array) for name, array in new.items()}, strict=False)
        expected, lead = greedy(changed, prompts[3], 16)
        if lead > 0.01 and model.config.eos_token_id not in expected:
            break
    running.wait(running.engine.update_weights(new, 41))
    second = running.generate(prompts[3], sampling)
    assert list(second.ids) == expected != list(first.ids)
    assert second.version == 41 != first.version
    sampled = running.generate(prompts[3], Sampling(1.0, 60, seed=2))
    with torch.no_grad():
        logits = changed(torch.tensor([prompts[3] + list(sampled.ids)])).logits[0, len(prompts[3]) - 1 : -1]
    reference = torch.log_softmax(logits, -1).gather(1, torch.tensor([list(sampled.ids)]).T)[:, 0].numpy()
    assert np.abs(np.array(sampled.logprobs) - reference).mean() < TOLERANCE, "some tensor has kept its old values"

    running.wait(running.engine.update_weights(old, 42))
    third = running.generate(prompts[3], sampling)
    assert (list(third.ids), third.version) == (list(first.ids), 42)
