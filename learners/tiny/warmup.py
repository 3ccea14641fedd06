"""The tiny policy's warm start: it imitates a random agent, and so learns the format and how to copy names, no more.

The random agent is gymnasium's own: `env.action_space.sample()`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import gymnasium as gym
import platformdirs
import torch

from learners import border, environment, seeds
from learners.checkpoint import replace_folder
from learners.config import Config
from learners.environment import EnvironmentFault, opened
from learners.old_form import COST_WRAPPER
from learners.packed_model import ATTENTION, token_logprobs
from learners.packing import pack
from learners.renderers.plain import PlainRenderer
from learners.report import track
from learners.tiny.config import TOKENIZER_EPISODES
from learners.tiny.model import make_model, make_tokenizer, save
from learners.transcript import Transcript
from learners.types import Completion, Status, Trajectory

_TAG = re.compile(r"</?\w+>|\\\w+\{")  # <search>, </search>, \boxed{
_CHARACTERS = 32_768  # of a random episode, at least
_VERSION = 4  # raise when the same configuration would give another policy


def tiny_policy(config: Config, say: Callable[[str], None]) -> Path:
    """Folder of the warm-started tiny policy of this configuration; made now unless it is cached.

    Raises:
        EnvironmentFault: the environment's action space gives no valid example actions.
    """
    section = config.environment()
    recipe = [_VERSION, section.id, section.kwargs, config.tiny.model_dump(), config.warmup.model_dump(),
              config.seed, config.engine.max_length]  # fmt: skip
    # A wrapper may change what the environment says. A cost of searching does not, and only rewards know of it.
    wrappers = [wrapper.model_dump() for wrapper in section.wrappers if wrapper.name != COST_WRAPPER]
    if wrappers:
        recipe.append(wrappers)
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    # As `research_env.files.home` reads it, which may not be imported here: "~" is the user's folder.
    given = os.environ.get("RESEARCH_HOME")
    home = Path(given).expanduser().absolute() if given else platformdirs.user_data_path("research-gym")
    folder = home / "policies" / f"tiny-{key}"
    if folder.exists():
        say(f"warm start: cached in {folder}")
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    _warm_up(config, partial, say)
    # Another process may have made the same policy meanwhile.
    if not folder.exists():
        replace_folder(partial, folder)
    return folder


def _warm_up(config: Config, folder: Path, say: Callable[[str], None]) -> None:
    section = config.environment()
    with opened(section, section.kwargs) as env:
        _imitate(config, env, folder, say)


def _imitate(config: Config, env: gym.Env[str, str], folder: Path, say: Callable[[str], None]) -> None:
    settings = config.warmup
    torch.set_num_threads(config.trainer.threads)
    environment.call(env, lambda: env.action_space.seed(config.seed))
    # Far more than an episode has room for; one that is only too long is judged by its tokens, before the training.
    episodes = random_episodes(env, config.seed, max(_CHARACTERS, 64 * config.engine.max_length))
    first = [next(episodes) for _ in range(TOKENIZER_EPISODES)]
    texts = ["".join(text for _, text in episode) for episode in first]
    tags = sorted({tag for text in texts for tag in _TAG.findall(text)})
    tokenizer = make_tokenizer(texts, tags, config.tiny.vocabulary)
    renderer = PlainRenderer(tokenizer)
    model = make_model(config.tiny, tokenizer, config.engine.max_length, config.seed)
    model.set_attn_implementation(ATTENTION)
    parameters = sum(p.numel() for p in model.parameters())
    say(f"warm start: {parameters / 1e6:.1f}M parameters, {len(tokenizer)} tokens, imitating a random agent")
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step in track(range(settings.steps), "warm start"):
        # Up over 20 steps, level, then down over the last third.
        rate = settings.learning_rate * min(1, (step + 1) / 20, (settings.steps - step) / (0.3 * settings.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = [first.pop() if first else next(episodes) for _ in range(settings.episodes_per_step)]
        batches = pack([_encode(renderer, episode) for episode in chosen], config.trainer.max_batch_tokens)
        tokens = sum(int(batch.mask.sum()) for batch in batches)
        loss = 0.0
        for batch in batches:
            part = -token_logprobs(model, batch).sum() / tokens
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 25 == 0 or step + 1 == settings.steps:
            say(f"warm start: step {step + 1}/{settings.steps}, {loss:.2f} nats a token")
    save(model, tokenizer, folder)


Episode = list[tuple[str, str]]
"""`(who, text)`: `prompt`, then `policy` and `environment` in turn."""


def random_episodes(env: gym.Env[str, str], seed: int, longest: int = 100_000) -> Iterator[Episode]:
    """Episodes of the random agent, without end, for a run with this seed.

    Args:
        env: Whose action space is the random agent.
        seed: Of the run.
        longest: Characters that an episode may have: a space can sample texts of any length, or never end an episode.

    Raises:
        EnvironmentFault: the environment failed; or a sampled action is empty: its space has no example to give; or an
            episode is too long.
    """
    for number in count():
        prompt, _ = environment.reset(env, seeds.warm_start(seed, number))
        episode, size, over = [("prompt", prompt)], len(prompt), False
        while not over:
            action = environment.call(env, lambda: border.text(env.action_space.sample()))
            if not action:
                raise EnvironmentFault(
                    "the tiny policy warms up on env.action_space.sample(), which gave an empty action here; "
                    "give --model a pretrained policy instead"
                )
            observation, _, terminated, truncated, _ = environment.step(env, action)
            episode += [("policy", action), ("environment", observation)]
            over = terminated or truncated
            size += len(action) + len(observation)
            if size > longest:
                raise EnvironmentFault(
                    "the tiny policy warms up on env.action_space.sample(), and an episode of such actions has "
                    f"{size:,} characters after {len(episode) // 2} turns, more than {longest:,}: give the space "
                    "short samples, raise --engine.max-length, or give --model a pretrained policy"
                )
        yield episode


def _encode(renderer: PlainRenderer, episode: Episode) -> Trajectory:
    transcript = Transcript(renderer.begin(episode[0][1], {}))
    for who, text in episode[1:]:
        ids = renderer.observe(text, {}) if text else []
        if who == "policy":
            transcript.act(Completion(ids, [0.0] * len(ids), "stop", 0))
        else:
            transcript.observe(ids)
    return transcript.finish(status=Status.TERMINATED, seed=0, group=0)
