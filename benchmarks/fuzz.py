"""Hostile bytes at the door: mutated models through `load` and `normalize`, which must answer or refuse, never break.

    python benchmarks/fuzz.py [--stage door|passes] [--inputs 100000] [--workers 1] [--seed 0] [MODEL.onnx ...]

`--stage passes`: what comes through goes on into every pass (`fuzz_passes.py`), of seeds and by mutations that are
made for that (`fuzz_structure.py`).

Seeds: the models that the onnx package ships for its backend tests, hand-written ones with subgraphs, functions and
external data, and the MODELs given, with their large weights turned into inputs so that a seed stays below 64 kB. A
mutation works on bytes (flips, cuts, doubled and foreign pieces) or on fields (a number, a name, a whole message or
list element changed, dropped, doubled, taken from another seed).

An input passes if `load` and `normalize` give a model or raise an `OnnxcompError`. It fails by any other exception, by
more than `LIMIT_S` seconds, by ending the process (a worker has 4 GiB; into passes 1 GiB above what it takes at its
start), or, into passes, by touching a file outside of its folder. Failing inputs are kept in `--keep`. Input i
depends on (seed, i) only. The result file has the counts, and the slowest inputs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from common import write
from fuzz_structure import restructured
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

LIMIT_S = 10.0
LONGEST_S = 90.0
SEED_BYTES = 64_000
MEMORY = 4 << 30
PASSES_MEMORY = 1 << 30
NUMBERS = (0, 1, -1, 2, 7, 16, 127, 255, 2**31 - 1, -(2**31), 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
TEXTS = ("", "x", "y", "ai.onnx", "ai.onnx.ml", "com.microsoft", "../x", "w.data", "\x1b[2J", "<script>", "Δ\n")
FRAME = re.compile(r'((?:onnxcomp|onnx_ir|onnx)/[^"]+", line \d+)')
"""Where in our code, or in the code that it called, an exception came from."""

HAND_WRITTEN = (
    """g (float[N,4] x, bool c) => (float[N,4] y) <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> {
        m = MatMul (x, w)
        y = If (c) <then_branch = t () => (float[N,4] a) { a = Relu (m) },
                    else_branch = e () => (float[N,4] b) { b = Add (m, m) }> }""",
    """g (float[1] x) => (float[1] y, float[K,1] all) <int64 n = {3}, bool on = {1}> {
        y, all = Loop (n, on, x) <body = b (int64 i, bool c, float[1] s) => (bool d, float[1] t, float[1] u) {
            d = Identity (c) t = Sin (s) u = Neg (s) }> }""",
    """g (float[N,3,8,8] x) => (float[N,K] y) <int64[1] minus = {-1}, float[2] scale = {1, 2}> {
        s = Shape (x) n = Gather <axis = 0> (s, minus) k = Constant <value_ints = [1]> ()
        t = Concat <axis = 0> (k, minus) q = Slice (s, k, minus) r = Cast <to = 1> (q) y = Reshape (x, t) }""",
    """g (float[N,8] x) => (float[N,8] y) <float[8] g = {1,1,1,1,1,1,1,1}> {
        m = ReduceMean <axes = [-1], keepdims = 1> (x) d = Sub (x, m) two = Constant <value_float = 2.0> ()
        p = Pow (d, two) v = ReduceMean <axes = [-1], keepdims = 1> (p) e = Constant <value_float = 0.00001> ()
        a = Add (v, e) s = Sqrt (a) q = Div (d, s) y = Mul (q, g) }""",
)
WITH_FUNCTIONS = """<ir_version: 9, opset_import: ["": 17, "local": 1]>
    g (float[N] x) => (float[N] y) { h = local.twice <k = 3.0> (x) y = local.twice (h) }
    <opset_import: ["": 17, "local": 1], domain: "local"> twice <k> (a) => (c) { b = local.once (a) c = local.once (b) }
    <opset_import: ["": 17], domain: "local"> once (a) => (b) { o = Constant <value_float = 1.0> () b = Add (a, o) }"""


def seeds(models: Iterable[Path]) -> list[bytes]:
    """The corpus, in a fixed order."""
    header = '<ir_version: 9, opset_import: ["": 17]> '
    found = [onnx.parser.parse_model(header + text) for text in HAND_WRITTEN]
    found.append(onnx.parser.parse_model(WITH_FUNCTIONS.replace("<k = 3.0>", "").replace("<k> ", "")))
    outside = onnx.parser.parse_model(header + HAND_WRITTEN[0])
    tensor = outside.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "w.data"), ("offset", "0"), ("length", "64")):
        tensor.external_data.add(key=key, value=value)
    found.append(outside)
    shipped = sorted((Path(onnx.__file__).parent / "backend/test/data").rglob("*.onnx"))
    for path in [*shipped, *models]:
        found.append(lightened(onnx.load(path, load_external_data=False)))
    return [content for proto in found if len(content := proto.SerializeToString(deterministic=True)) < SEED_BYTES]


def lightened(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every large weight as an input, and no more than the first nodes that fit."""
    for tensor in [t for t in proto.graph.initializer if t.ByteSize() > 600]:
        if tensor.name not in {v.name for v in proto.graph.input}:
            proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        proto.graph.initializer.remove(tensor)
    del proto.graph.value_info[40:]
    while proto.ByteSize() >= SEED_BYTES and len(proto.graph.node) > 8:
        del proto.graph.node[len(proto.graph.node) * 3 // 4 :]
        made = {name for node in proto.graph.node for name in node.output}
        del proto.graph.output[:]
        proto.graph.output.add(name=next(iter(proto.graph.node[-1].output), min(made)))
    return proto


def mutated(corpus: list[bytes], rng: random.Random) -> bytes:
    """One to four mutations of a seed."""
    content = rng.choice(corpus)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = (flipped if rng.random() < 0.4 else edited)(content, corpus, rng)
    return content


def mutated_graph(corpus: list[bytes], rng: random.Random) -> bytes:
    """One to four changes of what a seed's graph means, now and then with one of its fields."""
    proto = onnx.ModelProto.FromString(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if rng.random() < 0.1:
            content = edited(proto.SerializeToString(), corpus, rng)
            try:
                proto = onnx.ModelProto.FromString(content)
            except DecodeError:
                return content
            continue
        for _ in range(20):  # until one finds its place
            before = proto.SerializeToString()
            try:
                restructured(proto, rng)
                break
            except Exception:  # no such place, or what protobuf or NumPy refuse to make
                proto = onnx.ModelProto.FromString(before)
    return proto.SerializeToString()


MUTATED = {"door": mutated, "passes": mutated_graph}


def flipped(content: bytes, corpus: list[bytes], rng: random.Random) -> bytes:
    """Bytes changed without regard to what they mean."""
    data = bytearray(content)
    if not data:
        return bytes(rng.randbytes(8))
    start, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 16, 200))
    kind = rng.randrange(6)
    if kind == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[start] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del data[start : None if rng.random() < 0.3 else start + length]
    elif kind == 3:
        data[start:start] = data[start : start + length]
    elif kind == 4:
        other = rng.choice(corpus)
        begin = rng.randrange(len(other))
        data[start : start + rng.choice((0, length))] = other[begin : begin + length]
    else:
        data[start : start + length] = rng.randbytes(length)
    return bytes(data)


def edited(content: bytes, corpus: list[bytes], rng: random.Random) -> bytes:
    """One field of the protobuf changed, or bytes if it is none."""
    try:
        proto = onnx.ModelProto.FromString(content)
        edit_field(proto, onnx.ModelProto.FromString(rng.choice(corpus)), rng)
        return proto.SerializeToString()
    except Exception:  # what protobuf itself refuses to parse or to set
        return flipped(content, corpus, rng)


def edit_field(message: Message, other: Message, rng: random.Random) -> None:
    """Walks down to a random field and changes it; `other` is a message of the same type to take pieces from."""
    fields = message.ListFields()
    if not fields or rng.random() < 0.05:
        field = rng.choice(message.DESCRIPTOR.fields)
    else:
        # The graph more often than what stands beside it.
        field = rng.choices([f for f, _ in fields], [8 if f.name in ("graph", "node") else 1 for f, _ in fields])[0]
    value = getattr(message, field.name)
    if field.is_repeated:
        edit_list(message, field, value, getattr(other, field.name), rng)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if rng.random() < 0.15:
            message.ClearField(field.name)
        elif rng.random() < 0.1:
            value.CopyFrom(getattr(other, field.name))
        else:
            edit_field(value, getattr(other, field.name), rng)
    elif rng.random() < 0.15:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, scalar(field, value, rng))


def edit_list(message: Message, field: FieldDescriptor, value: object, donor: object, rng: random.Random) -> None:
    """Elements dropped, doubled, swapped, taken from elsewhere, or one of them changed."""
    count, kind = len(value), rng.randrange(8)  # type: ignore[arg-type]
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    if count and kind >= 4:
        index = rng.randrange(count)
        if is_message:
            same = donor[rng.randrange(len(donor))] if len(donor) else value[index]  # type: ignore[index,arg-type]
            edit_field(value[index], same, rng)  # type: ignore[index]
        else:
            value[index] = scalar(field, value[index], rng)  # type: ignore[index]
    elif count and kind == 0:
        del value[rng.randrange(count)]  # type: ignore[attr-defined]
    elif count and kind == 1:
        value.append(value[rng.randrange(count)])  # type: ignore[attr-defined,index]
    elif count and kind == 2 and not is_message:
        value.extend([value[0]] * rng.choice((1, 10, 1000)))  # type: ignore[attr-defined,index]
    elif len(donor):  # type: ignore[arg-type]
        value.append(donor[rng.randrange(len(donor))])  # type: ignore[attr-defined,index,arg-type]
    elif is_message:
        value.add()  # type: ignore[attr-defined]
    else:
        value.append(scalar(field, None, rng))  # type: ignore[attr-defined]


def scalar(field: FieldDescriptor, old: object, rng: random.Random) -> object:
    """A value that a field may have, near what is there or at an edge of what is possible."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(TEXTS) if rng.random() < 0.5 or not old else str(old)[: rng.randrange(len(str(old)) + 1)]
    if field.type == FieldDescriptor.TYPE_BYTES:
        data = bytes(old or b"")  # type: ignore[arg-type]
        return rng.choice((data[:-1], data + b"\0", b"", data * 2, b"\xff\xfe", rng.randbytes(8)))
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice((0.0, 1e38, -1.0, float("nan"), float("inf")))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.randrange(30)
    return rng.choice(NUMBERS) if rng.random() < 0.5 else int(old or 0) + rng.choice((-1, 1))  # type: ignore[call-overload]


class Hang(BaseException):
    """The time for one input is over."""


Told = tuple[str, str, str]
"""A step, its outcome, and where it failed."""


def tried(content: bytes, path: Path) -> Iterator[Told]:
    """How the door answers: accepted, or the class of the error."""
    from onnxcomp.errors import OnnxcompError
    from onnxcomp.model.load import load
    from onnxcomp.model.normalize import normalize

    path.write_bytes(content)
    try:
        normalize(load(path, ort_version="1.31.0").model)
        yield "door", "accepted", ""
    except OnnxcompError as error:
        yield "door", type(error).__name__, ""


def tried_passes(content: bytes, path: Path) -> Iterator[Told]:
    """How the door and every pass answer."""
    from fuzz_passes import answers

    path.write_bytes(content)
    for answer in answers(path, path.with_name("out.onnx")):
        told = "".join(traceback.format_exception(answer.error)) if answer.error else ""
        kind = f": {type(answer.error).__name__}" if answer.error else ""
        yield answer.step, answer.outcome + kind, told


TRIED = {"door": tried, "passes": tried_passes}


def watch(folder: Path, touched: list[str]) -> None:
    """Notes what this process writes, removes, renames or starts outside of `folder`."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str) and not path.startswith((str(folder), os.devnull)):
                touched.append(f"{event} {path}")
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            if not str(arguments[0]).startswith(str(folder)):
                touched.append(f"{event} {arguments[0]}")
        elif event in ("subprocess.Popen", "socket.connect", "os.system"):
            touched.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)


def work(stage: str, corpus: list[bytes], seed: int, begin: int, end: int, progress: object, out: object) -> None:
    """Inputs `begin` to `end`; `progress` holds the one at work, so that the parent knows which ended the process."""
    limit = MEMORY
    if stage == "passes":
        import fuzz_passes  # noqa: F401  (what it takes to be loaded is not the input's)

        limit = PASSES_MEMORY + int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # protobuf and onnx write what they refuse

    def over(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, over)
    touched: list[str] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        (Path(name) / "w.data").write_bytes(bytes(64))
        path = Path(name) / "model.onnx"
        if stage == "passes":
            watch(Path(name), touched)
        for i in range(begin, end):
            progress.value = i  # type: ignore[attr-defined]
            content = MUTATED[stage](corpus, random.Random(f"{seed}:{i}"))
            start = time.perf_counter()
            told: list[Told] = []
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
            try:
                told.extend(TRIED[stage](content, path))
            except Hang:
                told.append(("all", "FAILED: hang", traceback.format_exc()))
            except Exception as error:
                told.append(("all", f"FAILED: {type(error).__name__}", traceback.format_exc()))
            signal.setitimer(signal.ITIMER_PROF, 0)
            if touched:
                told.append(("all", "FAILED: touched " + touched[0], ""))
                touched.clear()
            out.send((i, told, time.perf_counter() - start))  # type: ignore[attr-defined]
    out.send(None)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--stage", choices=tuple(TRIED), default="door")
    parser.add_argument("--begin", type=int, default=0, help="First input.")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="After which no more inputs are tried.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "onnxcomp-fuzz")
    chosen = parser.parse_args()
    os.nice(10)
    corpus = seeds(chosen.models)
    if chosen.stage == "passes":
        from fuzz_passes import seeds_of_passes

        corpus += seeds_of_passes(chosen.models)
    print(f"{len(corpus)} seeds, {sum(map(len, corpus)):,} bytes")
    run = Run(chosen.stage, corpus, chosen.seed, chosen.keep)
    start = time.monotonic()
    run.all(chosen.begin, chosen.inputs, chosen.workers, start + 60 * chosen.minutes)
    write("fuzz" if chosen.stage == "door" else "fuzz_passes", run.result(time.monotonic() - start))


class Run:
    """The inputs handed out to workers, and what became of them."""

    def __init__(self, stage: str, corpus: list[bytes], seed: int, keep: Path) -> None:
        self.stage, self.corpus, self.seed, self.keep = stage, corpus, seed, keep
        self.inputs = 0
        self.outcomes: dict[str, Counter[str]] = {}
        self.failures: dict[str, list[dict[str, object]]] = {}
        self.slowest: list[tuple[float, int, str]] = []

    def all(self, first: int, inputs: int, workers: int, deadline: float) -> None:
        share, end = -(-inputs // workers), first + inputs
        ranges = [(begin, min(begin + share, end)) for begin in range(first, end, share)]
        context = multiprocessing.get_context("fork")
        running = [self._started(context, *r) for r in ranges]
        while running:
            if time.monotonic() > deadline:
                for process, *_ in running:
                    process.terminate()
                return
            for worker in tuple(running):
                process, connection, progress, end, seen = worker
                try:
                    ended = self._drained(connection, seen)
                except EOFError:
                    ended = False
                    process.join()
                alive = process.is_alive()
                if alive and time.monotonic() - seen[0] > LONGEST_S:
                    process.kill()
                    process.join()
                    alive = False
                if ended or not alive:
                    running.remove(worker)
                    if not ended:
                        told = ("all", f"FAILED: process ended ({process.exitcode})", "")
                        self._note(progress.value, [told], LONGEST_S)
                        if progress.value + 1 < end:
                            running.append(self._started(context, progress.value + 1, end))

    def _started(self, context: object, begin: int, end: int) -> tuple:  # type: ignore[type-arg]
        receiver, sender = context.Pipe(False)  # type: ignore[attr-defined]
        progress = context.Value("q", begin)  # type: ignore[attr-defined]
        arguments = (self.stage, self.corpus, self.seed, begin, end, progress, sender)
        process = context.Process(target=work, args=arguments)  # type: ignore[attr-defined]
        process.start()
        sender.close()
        return process, receiver, progress, end, [time.monotonic()]

    def _drained(self, connection: object, seen: list[float]) -> bool:
        while connection.poll(0.2):  # type: ignore[attr-defined]
            message = connection.recv()  # type: ignore[attr-defined]
            seen[0] = time.monotonic()
            if message is None:
                return True
            self._note(*message)
        return False

    def _note(self, i: int, told: list[Told], seconds: float) -> None:
        self.inputs += 1
        for step, outcome, _ in told:
            self.outcomes.setdefault(step, Counter())[outcome] += 1
        if self.inputs % (10_000 if self.stage == "door" else 1000) == 0:
            print(self.inputs, {step: dict(found) for step, found in self.outcomes.items()}, flush=True)
        worst = next((f"{step}: {o}" for step, o, _ in told if o.startswith("FAILED")), told[0][1])
        self.slowest = sorted([*self.slowest, (seconds, i, worst)], reverse=True)[:5]
        for step, outcome, trace in told:
            if outcome.startswith("FAILED"):
                place = ", ".join([step, outcome, *FRAME.findall(trace)[-2:]])
                self.failures.setdefault(place, []).append({"input": i})
                if len(self.failures[place]) <= 3:
                    self._keep(i, place, trace)

    def _keep(self, i: int, place: str, trace: str) -> None:
        self.keep.mkdir(parents=True, exist_ok=True)
        content = MUTATED[self.stage](self.corpus, random.Random(f"{self.seed}:{i}"))
        (self.keep / f"{self.seed}-{i}.onnx").write_bytes(content)
        (self.keep / f"{self.seed}-{i}.txt").write_text(f"{place}\n{trace}")
        print(f"input {i}: {place}\n   {trace.strip().splitlines()[-1:]}", flush=True)

    def result(self, seconds: float) -> dict[str, object]:
        return {
            "inputs": self.inputs,
            "seeds": len(self.corpus),
            "seed": self.seed,
            "seconds": round(seconds, 1),
            "outcomes": {step: dict(sorted(found.items())) for step, found in self.outcomes.items()},
            "failures": {place: len(found) for place, found in sorted(self.failures.items())},
            "slowest_ms": [
                {"input": i, "ms": round(1000 * s, 1), "outcome": outcome} for s, i, outcome in self.slowest
            ],
        }


if __name__ == "__main__":
    main()
