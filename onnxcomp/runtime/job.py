"""What parent and child hand each other: a job and its outcome as JSON, arrays as .npy files, all in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from onnxcomp.runtime.session import SessionConfig

JOB_FILE, OUTCOME_FILE, STDERR_FILE = "job.json", "outcome.json", "stderr.txt"


class Job(BaseModel):
    """What the child has to do.

    Args:
        model: The file to load.
        config: How to open it.
        inputs: Names of the inputs, whose arrays are beside this file; None to load only.
        memory_bytes: Limit of the child's memory; None for none.
        cpu_seconds: Limit of the child's processor time, over all threads.
        parent: Process id of the parent, at whose end the child ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    config: SessionConfig
    inputs: tuple[str, ...] | None
    memory_bytes: int | None
    cpu_seconds: int
    parent: int


class Failure(BaseModel):
    """An error of `onnxcomp.errors`, by its class name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str
    message: str
    hint: str | None


class Outcome(BaseModel):
    """What the child found: a failure, or the rest.

    Args:
        outputs: Number of output arrays beside this file; None when there was no feed, or no file can hold them.
        effective_providers: In the order of their priority.
        load_seconds: From the file to an open session.
        run_seconds: The one run; 0 without a feed.
        peak_bytes: Largest resident memory of the child; 0 where the system does not tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    failure: Failure | None = None
    outputs: int | None = None
    effective_providers: tuple[str, ...] = ()
    load_seconds: float = 0.0
    run_seconds: float = 0.0
    peak_bytes: int = 0


def write_arrays(folder: Path, prefix: str, arrays: Sequence[np.ndarray]) -> None:
    """Writes `prefix-0.npy`, `prefix-1.npy`, …; never a pickle.

    Raises:
        ValueError: An array is of a kind that .npy can't hold: objects, or dtypes that numpy does not know.
    """
    for i, array in enumerate(arrays):
        kind = array.dtype if isinstance(array, np.ndarray | np.generic) else type(array).__name__  # a list: a sequence
        if not isinstance(kind, np.dtype) or kind.kind in "OVT":  # ml_dtypes are V, and would come back as raw bytes
            raise ValueError(f"no .npy file holds {kind}")
        np.save(folder / f"{prefix}-{i}.npy", array, allow_pickle=False)


def read_arrays(folder: Path, prefix: str, count: int) -> list[np.ndarray]:
    """The arrays of `write_arrays`."""
    return [np.load(folder / f"{prefix}-{i}.npy", allow_pickle=False) for i in range(count)]
