"""Parts of a run on the workers of a Ray cluster; without one, here and one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lmm.errors import UsageError

Part = TypeVar("Part")
Result = TypeVar("Result")


def spread(work: Callable[[Part], Result], parts: Sequence[Part], address: str | None = None) -> list[Result]:
    """`work` of each part, in their order.

    `address` is a cluster's: "auto", "HOST:PORT", "ray://HOST:PORT", or "local" for one of this machine's own. Its
    workers have this lmm and see the same files; each part has one core. Raises UsageError where there is no cluster,
    and the error of the first part that fails.
    """
    if address is None:
        return [work(part) for part in parts]
    try:
        import ray
    except ImportError:
        raise UsageError("ray is not installed; run: pip install 'lmm[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"there is no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error
    try:
        settings = {name: value for name, value in os.environ.items() if name.startswith("LMM_")}
        there = ray.remote(num_cpus=1)(_there)
        return ray.get([there.remote(work, os.getcwd(), settings, part) for part in parts])
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        ray.shutdown()


def _there(work: Callable[[Any], Any], folder: str, settings: Mapping[str, str], part: Any) -> Any:
    os.chdir(folder)
    os.environ.update(settings)
    return work(part)
