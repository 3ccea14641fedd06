"""What crosses the boundary between the loop and its actors."""

from __future__ import annotations

import pytest
import ray

from learners.cluster import _get
from learners.environment import EnvironmentFault


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote
def fail(error: Exception) -> None:
    raise error


def test_an_environments_fault_arrives_as_itself() -> None:
    with pytest.raises(EnvironmentFault) as caught:
        _get([fail.remote(EnvironmentFault("ConnectionError: no door 1"))])
    assert str(caught.value) == "ConnectionError: no door 1"
    assert type(caught.value) is EnvironmentFault


def test_other_errors_keep_the_actors_traceback() -> None:
    with pytest.raises(ZeroDivisionError, match="in fail"):
        _get([fail.remote(ZeroDivisionError("of ours"))])
