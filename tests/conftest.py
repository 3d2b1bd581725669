"""What a test run must not share with the user's own work: the cache of measurements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onnxcomp.runtime.cache import ENVIRONMENT


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Latencies that an earlier run measured under load would decide what this one plans."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(tmp_path_factory.mktemp("cache")))
        yield
