"""What runs where: the resources and environment variables of the actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learners.config import Config


def environment(threads: int) -> dict[str, str]:
    """Environment variables of a process that computes: its share of threads, and none of them spinning while idle.

    Engine and trainer take turns on the same cores; a thread that spins while it waits would slow the other down
    five to ten times. OpenMP reads its variables when torch is first imported, so they must be set before.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        # vLLM would bind its threads to cores, and several engines to the same ones.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


def engine_options(config: Config) -> dict[str, Any]:
    """Ray's options of an actor that holds an engine and its environments."""
    engine = config.engine
    return {
        # Engine and trainer take turns on the same threads, so no CPUs are reserved.
        "num_cpus": 0,
        "num_gpus": engine.tensor_parallel if engine.device == "cuda" else 0,
        # Methods that wait, e.g. `collect`, must not keep `close` from being called.
        "max_concurrency": 16,
        "runtime_env": {"env_vars": environment(engine.threads)},
    }


def trainer_options(config: Config) -> dict[str, Any]:
    """Ray's options of an actor that holds one rank of the trainer."""
    trainer = config.trainer
    return {
        "num_cpus": 0,
        "num_gpus": 1 if trainer.device == "cuda" else 0,
        "runtime_env": {"env_vars": environment(trainer.threads)},
    }
