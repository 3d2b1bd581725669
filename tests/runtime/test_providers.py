from __future__ import annotations

from pathlib import Path

import pytest

from onnxcomp.errors import UnavailableError
from onnxcomp.runtime import providers
from onnxcomp.runtime.library import onnxruntime
from onnxcomp.runtime.session import SessionConfig, open_session

without_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime().get_available_providers(), reason="this ONNX Runtime has CUDA"
)


def test_the_cpu_is_always_here_and_the_last_resort_for_single_nodes() -> None:
    providers.require("cpu")
    assert providers.priority("cpu") == ["CPUExecutionProvider"]
    assert providers.priority("cuda") == ["CUDAExecutionProvider", "CPUExecutionProvider"]


@without_cuda
def test_cuda_on_a_cpu_wheel_is_unavailable_and_names_the_wheel() -> None:
    with pytest.raises(UnavailableError, match=r"onnxcomp\[gpu\]") as caught:
        providers.require("cuda")
    assert caught.value.exit_code == 3


@without_cuda
def test_no_session_falls_back_from_cuda_to_the_cpu(relu: bytes) -> None:
    with pytest.raises(UnavailableError):
        open_session(relu, SessionConfig(provider="cuda"))


def test_a_provider_that_is_built_in_but_does_not_start_is_unavailable(
    relu: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(onnxruntime(), "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(providers, "preload", lambda provider: None)
    monkeypatch.setattr(providers, "priority", lambda provider: ["CPUExecutionProvider"])  # as after a driver mismatch
    with pytest.raises(UnavailableError, match="did not start"):
        open_session(relu, SessionConfig(provider="cuda"))
