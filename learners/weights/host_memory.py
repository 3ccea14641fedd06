"""Weights through shared host memory, as a weight-transfer engine of vLLM's own interface.

vLLM ships transports between GPUs (NCCL, CUDA IPC). This one serves a CPU, and any machine whose trainer and
engine share no fabric: the flat buffer comes over Ray's object store, and the engine's workers read it from a
POSIX shared-memory segment. `register` is called in every process of vLLM through the `vllm.general_plugins`
entry point of this package.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

BACKEND = "research_host_memory"

Layout = list[tuple[str, str, list[int], int]]
"""`(name, dtype, shape, offset in bytes)` of each tensor in the segment."""

_ALIGN = 64
"""Bytes: every tensor begins at a multiple of this, as vector instructions like it."""

_SEGMENTS = Path("/dev/shm")
"""Where Linux, the one system with vLLM, keeps POSIX shared memory (shm_overview(7))."""


def describe(weights: Mapping[str, np.ndarray]) -> tuple[Layout, int]:
    """Where each tensor goes in one flat buffer, and the buffer's size in bytes."""
    layout, offset = [], 0
    for name, array in weights.items():
        layout.append((name, str(array.dtype), list(array.shape), offset))
        offset += -(-array.nbytes // _ALIGN) * _ALIGN
    return layout, offset


def fill(segment: SharedMemory, weights: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Copy the weights into the segment."""
    assert segment.buf is not None  # it is None only after the segment is closed
    for name, view in views(segment.buf, layout):
        np.copyto(view, weights[name])


def attach(name: str) -> mmap.mmap:
    """The segment of another process, to be read.

    `SharedMemory(name)` cannot be used before Python 3.13, because it registers the segment with the resource tracker,
    as if it were its own. A child process has its parent's tracker, so unregistering would undo the owner's
    registration. Without unregistering, a process that has a tracker of its own destroys the segment when it ends, with
    a warning. A plain map of the file registers nothing, and only the owner unlinks the segment.
    """
    with (_SEGMENTS / name).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def views(buffer: memoryview | mmap.mmap, layout: Layout) -> list[tuple[str, np.ndarray]]:
    """The tensors in a segment, without a copy. They must be dropped before the segment is closed."""
    return [(name, np.ndarray(shape, dtype, buffer=buffer, offset=offset)) for name, dtype, shape, offset in layout]


def register() -> None:
    """Tell vLLM about this transport; a second call changes nothing."""
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, __name__, "HostMemoryEngine")


def __getattr__(name: str) -> Any:
    """`HostMemoryEngine` subclasses a class of vLLM's, so it is made when vLLM first asks for it."""
    if name != "HostMemoryEngine":
        raise AttributeError(name)
    engine = _make_engine()
    globals()[name] = engine
    return engine


def _make_engine() -> type:
    import torch
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    @dataclass
    class InitInfo(WeightTransferInitInfo):
        segment: str

    @dataclass
    class UpdateInfo(WeightTransferUpdateInfo):
        layout: Layout

    class HostMemoryEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
        init_info_cls = InitInfo
        update_info_cls = UpdateInfo

        def init_transfer_engine(self, init_info: InitInfo) -> None:
            self._segment = attach(init_info.segment)

        def start_weight_update(self) -> None:
            initialize_layerwise_reload(self.model)

        def update_weights(self, update_info: dict[str, Any]) -> None:
            # The base class would wait for an accelerator, which this machine may not have.
            self.receive_weights(self.parse_update_info(update_info))

        def receive_weights(self, update_info: UpdateInfo) -> None:
            # Copied: the loader may keep what it is given until the update is finished.
            self.model.load_weights(
                (name, torch.from_numpy(view.copy()).to(self.device))
                for name, view in views(self._segment, update_info.layout)
            )

        def finish_weight_update(self) -> None:
            finalize_layerwise_reload(self.model, self.model_config)
            # A tied head shares the embedding's new weights, but is not loaded itself, so the reload leaves it the
            # packed copy of the first weights that vLLM's CPU kernels multiply with.
            head: Any = getattr(self.model, "lm_head", None)
            if getattr(self.model_config.hf_config, "tie_word_embeddings", False) and hasattr(head, "quant_method"):
                head.quant_method.process_weights_after_loading(head)

        def shutdown(self) -> None:
            if hasattr(self, "_segment"):
                self._segment.close()

    return HostMemoryEngine
