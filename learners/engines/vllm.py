"""The vLLM engine: continuous batching, prefix caching, weights updated in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING

import numpy as np

from learners.types import Completion, Sampling
from learners.weights.host_memory import BACKEND, describe, fill

if TYPE_CHECKING:
    from learners.engines.config import EngineConfig


class VllmEngine:
    """Real vLLM, `AsyncLLM`, on CPU or GPU. Make it inside a running event loop."""

    def __init__(self, config: EngineConfig, model: str, seed: int = 0) -> None:
        """Start the engine.

        Args:
            config: Size and precision of the engine.
            model: Folder (or Hub id) in Hugging Face format: tokenizer, configuration and first weights.
            seed: Seed of the engine's own random stream.
        """
        # Its engine core is a process of its own, which reads these when it starts.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        if config.device == "cpu":
            # Model and scheduler in one process: apart, the scheduler spins on a core of its own while the model
            # computes. With this variable vLLM keeps both in the engine core's process, which is still a separate one.
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import AsyncEngineArgs
        from vllm.config import WeightTransferConfig
        from vllm.v1.engine.async_llm import AsyncLLM

        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=model,
                dtype=config.dtype,
                max_model_len=config.max_length,
                max_num_seqs=config.max_sequences,
                # Without chunked prefill, one pass must hold the longest prompt.
                max_num_batched_tokens=max(config.max_length, config.max_batch_tokens),
                enable_prefix_caching=True,
                block_size=32 if config.device == "cpu" else None,
                kv_cache_memory_bytes=int(config.cache_gib * 2**30) if config.device == "cpu" else None,
                gpu_memory_utilization=config.gpu_memory_share,
                tensor_parallel_size=config.tensor_parallel,
                enforce_eager=config.device == "cpu",
                # vLLM's CPU sampler cannot combine prompts in pieces with seeds of single requests.
                distributed_executor_backend="uni" if config.device == "cpu" else None,
                enable_chunked_prefill=config.device != "cpu",
                # After temperature: the loss needs the distribution that the tokens were sampled from.
                logprobs_mode="processed_logprobs",
                weight_transfer_config=WeightTransferConfig(backend=BACKEND),
                disable_log_stats=True,
                seed=seed,
            )
        )
        self._requests = count()
        self._version = 0
        self._linked = False
        self._segment: SharedMemory | None = None

    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Completion:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            logprobs=0,  # of the sampled token, and of no others
            seed=sampling.seed,
            # No ids: a string that is one token can also lie inside a longer one, or come in pieces.
            stop=list(sampling.stop),
            include_stop_str_in_output=True,
            detokenize=bool(sampling.stop),
            # A tokenizer may hold a tag as a special token; its text counts, too.
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        async for output in self._llm.generate({"prompt_token_ids": list(ids)}, params, str(next(self._requests))):
            final = output.outputs[0]
        sampled = list(final.token_ids)
        logprobs = [entry[token].logprob for entry, token in zip(final.logprobs, sampled, strict=True)]
        return Completion(sampled, logprobs, final.finish_reason or "stop", self._version)

    async def update_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest

        layout, size = describe(weights)
        if self._segment is None:
            self._segment = SharedMemory(create=True, size=size)
        fill(self._segment, weights, layout)
        if not self._linked:
            await self._llm.init_weight_transfer_engine(WeightTransferInitRequest({"segment": self._segment.name}))
            self._linked = True
        # The cache is cleared, because its prefixes were computed with the old weights.
        await self._llm.pause_generation(mode="wait", clear_cache=True)
        await self._llm.start_weight_update()
        await self._llm.update_weights(WeightTransferUpdateRequest({"layout": layout}))
        await self._llm.finish_weight_update(weight_version=str(version))
        await self._llm.resume_generation()
        self._version = version

    async def close(self) -> None:
        self._llm.shutdown()
        del self._llm  # otherwise its destructor would run when the interpreter ends, and fail
        if self._segment is not None:
            self._segment.close()
            self._segment.unlink()
            self._segment = None
