"""Sessions: a model loaded by ONNX Runtime, in this process, with our errors and no silent fallback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxcomp.errors import UnavailableError, UsageError
from onnxcomp.runtime import providers
from onnxcomp.runtime.library import onnxruntime
from onnxcomp.runtime.messages import translate
from onnxcomp.runtime.providers import Provider
from onnxcomp.runtime.source import TemporaryFolder, loadable

if TYPE_CHECKING:  # the child process starts without onnx-ir
    import onnx_ir as ir

Feed = Mapping[str, np.ndarray]
Optimization = Literal["all", "extended", "basic", "none"]

FAIR_INTERLEAVING = (("session.force_spinning_stop", "1"),)
"""Entries for sessions that are timed in turns with two threads or more: by default the threads of the session that has
just run go on spinning for a while, on the cores of the next one."""

_LEVELS: dict[Optimization, str] = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
_FATAL_ONLY = 4


@dataclass(frozen=True)
class SessionConfig:
    """How a session is opened.

    Args:
        provider: Where it runs; with `cuda` the nodes without a CUDA kernel run on the CPU.
        threads: Intra-op threads; operators run one after the other.
        optimization: ONNX Runtime's graph optimisation level; `all` includes layouts of this machine.
        custom_ops: Libraries with custom operators. They are code: only those that the user named.
        entries: Session config entries, as `("session.disable_quant_qdq", "1")`.
        optimized_path: Where ONNX Runtime writes the graph that it runs.
        profile_prefix: Profile the runs, into a file that begins so.
    """

    provider: Provider = "cpu"
    threads: int = 1
    optimization: Optimization = "all"
    custom_ops: tuple[Path, ...] = ()
    entries: tuple[tuple[str, str], ...] = ()
    optimized_path: Path | None = None
    profile_prefix: Path | None = None

    def interleaved(self) -> SessionConfig:
        """The same, for sessions that are timed in turns."""
        return self if self.threads == 1 else replace(self, entries=(*self.entries, *FAIR_INTERLEAVING))

    def absolute(self) -> SessionConfig:
        """The same, for a process with another working directory."""
        return replace(
            self,
            custom_ops=tuple(path.absolute() for path in self.custom_ops),
            optimized_path=self.optimized_path and self.optimized_path.absolute(),
            profile_prefix=self.profile_prefix and self.profile_prefix.absolute(),
        )


class Session:
    """An open ONNX Runtime session; made by `open_session`, closed by `close` or at the end of a `with`."""

    def __init__(self, inference_session: Any, folder: TemporaryFolder | None = None) -> None:
        self._session = inference_session
        self._folder = folder
        self.input_names: tuple[str, ...] = tuple(value.name for value in inference_session.get_inputs())
        self.output_names: tuple[str, ...] = tuple(value.name for value in inference_session.get_outputs())
        self.effective_providers: tuple[str, ...] = tuple(inference_session.get_providers())

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Runs the model once.

        Args:
            feed: One array for each input.
            outputs: Names of the outputs to compute, in the order wanted; all of them by default.

        Raises:
            DataError: The feed does not fit the inputs.
            LimitError: No memory for it.
            ModelError: ONNX Runtime failed in a node.
        """
        try:
            return list(self._session.run(None if outputs is None else list(outputs), dict(feed)))
        except Exception as error:
            raise translate(error, "ONNX Runtime can't run the model") from error

    def runner(self, feed: Feed) -> Callable[[], object]:
        """A call without arguments that runs the model on `feed`, for benchmarks.

        Inputs and outputs stay bound on the device, so that what is timed is the model and not the copies.
        Strings, sequences, maps and optionals can't be bound, nor outputs of another rank than declared: such models
        are run in the ordinary way.
        """
        ports = (*self._session.get_inputs(), *self._session.get_outputs())
        if not all(port.type.startswith("tensor(") and port.type != "tensor(string)" for port in ports):
            return lambda: self.run(feed)
        device = "cuda" if providers.ORT_NAMES["cuda"] in self.effective_providers else "cpu"
        ort, binding = onnxruntime(), self._session.io_binding()
        try:
            to_device = ort.OrtValue.ortvalue_from_numpy
            values = {name: to_device(np.ascontiguousarray(array), device) for name, array in feed.items()}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in self.output_names:
                binding.bind_output(name, device)
        except Exception as error:
            raise translate(error, "ONNX Runtime can't take these inputs") from error
        run = self._session.run_with_iobinding
        try:
            for _ in range(2):  # the first run makes the outputs, the second one takes them as bound
                run(binding)
        except Exception:
            # Bound outputs must have the rank that the model declares; without a binding ONNX Runtime only warns.
            self.run(feed)
            return lambda: self.run(feed)

        def call() -> object:
            try:
                run(binding)
            except Exception as error:
                raise translate(error, "ONNX Runtime can't run the model") from error
            return values  # a binding does not keep its inputs alive: this closure has to

        return call

    def end_profiling(self) -> Path:
        """Closes the profile that `profile_prefix` asked for, and gives its file."""
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """Frees the session and its temporary files; a second call does nothing."""
        self._session = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_session(model: ir.Model | bytes | Path, config: SessionConfig | None = None) -> Session:
    """Loads a model for running in this process; a model that nobody has tried belongs in `child.probe` first.

    Args:
        model: In memory, serialised, or a file. One too large for a single protobuf is written to a temporary
            folder that lives as long as the session.
        config: By default one thread on the CPU, all optimisations.

    Raises:
        ModelError: ONNX Runtime refuses it.
        UnavailableError: The provider is not here, or does not start: there is no fallback.
        UsageError: A custom operator library does not load.
    """
    config = config or SessionConfig()
    providers.require(config.provider)
    options = _options(config)
    source, folder = loadable(model)
    try:
        return Session(_inference_session(source, options, config), folder)
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise


def _options(config: SessionConfig) -> Any:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY  # errors arrive as exceptions: the log would say them twice
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[config.optimization])
    for key, value in config.entries:
        options.add_session_config_entry(key, value)
    if config.optimized_path is not None:
        options.optimized_model_filepath = str(config.optimized_path)
    if config.profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(config.profile_prefix)
    for library in config.custom_ops:
        _register(options, library)
    return options


def _register(options: Any, library: Path) -> None:
    # An absolute path: the loader would look for a bare name in the system's folders.
    path = library.absolute()
    if not path.is_file():
        raise UsageError(f"no custom operator library at {library}")
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:
        raise translate(error, f"the custom operator library {library.name} does not load") from error


def _inference_session(source: bytes | str, options: Any, config: SessionConfig) -> Any:
    ort = onnxruntime()
    providers.preload(config.provider)
    try:
        # Without this flag the Python wrapper prints, drops to the CPU and goes on.
        session = ort.InferenceSession(
            source, options, providers=providers.priority(config.provider), enable_fallback=False
        )
    except Exception as error:
        raise translate(error, "ONNX Runtime can't load the model") from error
    wanted = providers.ORT_NAMES[config.provider]
    if wanted not in session.get_providers():
        raise UnavailableError(
            f"{wanted} was asked for and did not start; ONNX Runtime offers {', '.join(session.get_providers())}",
            hint="check the driver (nvidia-smi), and the CUDA and cuDNN that this onnxruntime-gpu was built for",
        )
    return session
