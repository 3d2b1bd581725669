"""The time limit of a job: checked wherever progress is reported, so that long work can't outlive it by much."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from onnxcomp.errors import LimitError
from onnxcomp.passes.base import Progress


@dataclass(frozen=True)
class Clock:
    """Args: limit: seconds for the job, None for no limit; progress: whom to pass reports on to."""

    limit: float | None
    progress: Progress
    start: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def remaining(self) -> float | None:
        return None if self.limit is None else self.limit - self.elapsed()

    def report(self, stage: str, done: int, total: int | None) -> None:
        """Passes progress on.

        Raises:
            LimitError: The time is over; nothing has been written.
        """
        if self.limit is not None and self.elapsed() > self.limit:
            raise LimitError(
                f"the time limit of {self.limit:g} s was hit while {stage}",
                hint="nothing was written; raise --time-limit",
            )
        self.progress(stage, done, total)
