"""Small files that ask for much: refused, or survived within memory and time, by the real command line."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from hostile import FEEDS, two_products

ROOT = Path(__file__).parents[2]
HEADER = '<ir_version: 9, opset_import: ["": 17, "l": 1]> '
SECONDS = 60.0
PEAK_BYTES = 3 << 30
"""Of the tool or its child, whichever takes more: a bare ONNX Runtime takes 0.1 GiB, the folding budget 1 GiB."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures with wait4")


def text(body: str, constants: str = "") -> bytes:
    return onnx.parser.parse_model(
        f"{HEADER} g (float[2] x) => (float[2] y) <{constants}> {{ {body} }}"
    ).SerializeToString()


def asks(operator: str, constants: str) -> bytes:
    """An operator with constant inputs; one number of its result is used."""
    return text(f"b = {operator} m = ReduceMax <keepdims = 0> (b) y = Add (x, m)", constants)


def many_medium() -> bytes:
    """Three hundred constants of a million elements, each below the limit of one: 2.4 GB together."""
    body = "".join(f"c{i} = ConstantOfShape (n) r{i} = Neg (c{i}) " for i in range(300))
    body += "".join(f"m{i} = ReduceMax <keepdims = 0> (r{i}) " for i in range(300)) + "s0 = Add (x, m0) "
    body += "".join(f"s{i} = Add (s{i - 1}, m{i}) " for i in range(1, 300)) + "y = Identity (s299)"
    return text(body, "int64[1] n = {1048576}")


def laughing() -> bytes:
    """Functions of which each calls the next twice, sixty deep."""
    functions = "".join(
        f'<opset_import: ["": 17, "l": 1], domain: "l"> f{i} (a) => (c) {{ b = l.f{i + 1} (a) c = l.f{i + 1} (b) }} '
        for i in range(60)
    )
    last = '<opset_import: ["": 17], domain: "l"> f60 (a) => (b) { b = Relu (a) }'
    head = f"{HEADER} g (float[2] x) => (float[2] y) {{ y = l.f0 (x) }}"
    return onnx.parser.parse_model(f"{head} {functions} {last}").SerializeToString()


def of_one_name() -> bytes:
    """Twenty thousand nodes and no more than one name for them."""
    proto = onnx.parser.parse_model(HEADER + "g (float[2] x) => (float[2] v20000) { v0 = Relu (x) }")
    proto.graph.node[0].name = "n"
    for i in range(20_000):
        proto.graph.node.add(op_type="Neg", name="n", input=[f"v{i}"], output=[f"v{i + 1}"])
    return proto.SerializeToString()


def doubled(first: str, step: str) -> bytes:
    """Forty steps, each of which makes a value twice as long."""
    steps = "".join(step.format(i=i, p=i - 1) for i in range(1, 41))
    return text(f"c0 = {first} (x, z) {steps} m = ReduceMax <keepdims = 0> (c40) y = Add (x, m)", "int64[1] z = {0}")


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    proto = two_products()
    change(proto)
    return proto.SerializeToString()


def _loop(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "b"


def _dims(*dims: int) -> Callable[[onnx.ModelProto], object]:
    return lambda proto: proto.graph.initializer[0].dims.__setitem__(slice(None), dims)


def _input(*dims: int) -> Callable[[onnx.ModelProto], object]:
    value = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, dims)
    return lambda proto: proto.graph.input.append(value)


def _attributes(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("list", list(range(1_000_000))))


def _long(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].name = "n" * 5_000_000
    proto.graph.node[0].op_type = "No" * 1_000_000


BOMBS: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "ConstantOfShape, 64 GiB": (lambda: asks("ConstantOfShape (n)", "int64[2] n = {131072, 131072}"), (4, 6)),
    "ConstantOfShape, 2⁶² elements": (lambda: asks("ConstantOfShape (n)", f"int64[1] n = {{{2**62}}}"), (4, 6)),
    "ConstantOfShape, product overflows": (
        lambda: asks("ConstantOfShape (n)", f"int64[3] n = {{{2**40}, {2**40}, 2}}"),
        (4, 6),
    ),
    "ConstantOfShape, negative": (lambda: asks("ConstantOfShape (n)", "int64[1] n = {-5}"), (0, 4)),
    "Expand, 256 GiB": (lambda: asks("Expand (o, n)", "float o = {1}, int64[2] n = {262144, 262144}"), (4, 6)),
    "Tile, 256 GiB": (lambda: asks("Tile (o, n)", "float[1,1] o = {1}, int64[2] n = {262144, 262144}"), (4, 6)),
    "Range, 512 GiB": (
        lambda: asks("Range (a, b, c)", f"float a = {{0}}, float b = {{{2**37}}}, float c = {{1}}"),
        (4, 6),
    ),
    "Range, no end": (lambda: asks("Range (a, b, c)", "float a = {0}, float b = {1}, float c = {0}"), (0, 4, 6)),
    "many medium constants": (many_medium, (0,)),
    "a vector that doubles": (lambda: doubled("Gather", "c{i} = Concat <axis = 0> (c{p}, c{p}) "), (6,)),
    "rows that double": (
        lambda: doubled("Unsqueeze", "n{i} = Neg (c{p}) c{i} = Concat <axis = 0> (c{p}, n{i}) "),
        (6,),
    ),
    "functions without end": (laughing, (4,)),
    "one name for all nodes": (of_one_name, (0, 4)),
    "a cycle": (lambda: changed(_loop), (4,)),
    "a name made twice": (lambda: changed(lambda p: p.graph.node[1].output.__setitem__(0, "a")), (4,)),
    "an initializer twice": (lambda: changed(lambda p: p.graph.initializer.append(p.graph.initializer[0])), (4,)),
    "raw data too short": (lambda: changed(lambda p: setattr(p.graph.initializer[0], "raw_data", b"1")), (4,)),
    "negative dims": (lambda: changed(_dims(-64, -64)), (4,)),
    "overflowing dims": (lambda: changed(_dims(2**40, 2**40)), (4,)),
    "an input of 2⁶⁰ bytes": (lambda: changed(_input(2**58)), (4, 6)),
    "an input of 2⁷⁰ bytes": (lambda: changed(_input(2**34, 2**34)), (4, 6)),
    "a negative input": (lambda: changed(_input(-3)), (0, 4)),
    "an attribute of a million": (lambda: changed(_attributes), (4,)),
    "names of megabytes": (lambda: changed(_long), (4,)),
}


def ends(words: list[object], folder: Path) -> tuple[int, str]:
    """Exit code and stderr of the command line, having checked its time and the peak of its memory."""
    with (folder / "said").open("wb") as said:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "onnxcomp.cli.main", *map(str, words)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        while (ended := os.wait4(process.pid, os.WNOHANG)) == (0, 0, ended[2]):
            if time.monotonic() - began > SECONDS:
                process.kill()
                os.wait4(process.pid, 0)
                pytest.fail(f"no end after {SECONDS} s")
            time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    assert ended[2].ru_maxrss * 1024 < PEAK_BYTES
    return process.returncode, (folder / "said").read_text()


@pytest.mark.parametrize("name", BOMBS)
def test_a_model_that_asks_for_much_is_refused_or_survived(tmp_path: Path, name: str) -> None:
    make, codes = BOMBS[name]
    (tmp_path / "m.onnx").write_bytes(make())
    code, said = ends(["simplify", "m.onnx", "-o", "o.onnx", "--time-limit", "15"], tmp_path)
    assert code in codes, said
    assert "Traceback" not in said
    assert len(said) < 10_000
    assert (tmp_path / "o.onnx").exists() == (code == 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(two_products().SerializeToString())
    return path


def npy(shape: tuple[int, ...], content: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def test_an_archive_whose_member_unpacks_to_64_gib_is_refused_at_once(
    onnxcomp: Run, model: Path, tmp_path: Path
) -> None:
    """Sizes as the directory of the archive tells them; nothing of it is unpacked."""
    content = npy((2**28, 64))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    data = bytearray((tmp_path / "bomb.npz").read_bytes())
    directory = data.index(b"PK\x01\x02")
    for place in (22, directory + 24):
        data[place : place + 4] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "bomb.npz").write_bytes(data)
    began = time.monotonic()
    code, said = onnxcomp("quantize", model, "--calibration", tmp_path / "bomb.npz")
    assert code == 4, said
    assert "says it unpacks to over" in said or "unpacks to" in said
    assert time.monotonic() - began < 10


def test_an_archive_of_zeros_that_really_unpacks_to_gigabytes_is_refused(
    onnxcomp: Run, model: Path, tmp_path: Path
) -> None:
    rows = 8 << 20  # times 64 floats: 2 GiB, in 2 MB
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy((rows, 64)))
        for _ in range(128):
            member.write(bytes(16 << 20))
    assert (tmp_path / "bomb.npz").stat().st_size < 3 << 20
    code, said = onnxcomp("quantize", model, "--calibration", tmp_path / "bomb.npz")
    assert code == 4, said
    assert "1000 times its size" in said


def test_an_archive_of_thousands_of_members_is_refused(onnxcomp: Run, model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as archive:
        for i in range(10_001):
            archive.writestr(f"a{i}.npy", npy((1,), bytes(4)))
    code, said = onnxcomp("quantize", model, "--calibration", tmp_path / "many.npz")
    assert code == 4, said
    assert "10,001 arrays" in said


def png(width: int, height: int, tail: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(tail)) + chunk(b"IEND", b"")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/tmp/pwned) (w) file\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("huge.png", png(200_000, 200_000), "refused|exceeds limit"),
        ("wide.png", png(2**31 - 1, 1), "refused|exceeds limit|not a readable"),
        ("empty.png", png(8, 8), "not a readable image"),
        ("script.png", POSTSCRIPT, "not a readable image"),
        ("script.jpg", POSTSCRIPT, "not a readable image"),
    ],
)
def test_an_image_that_says_more_than_it_is_or_is_another_thing_is_refused(
    onnxcomp: Run, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    import re

    proto = onnx.parser.parse_model(HEADER + "g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu (x) }")
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / name).write_bytes(content)
    code, said = onnxcomp("quantize", tmp_path / "m.onnx", "--calibration", f"images:{tmp_path / 'images'}")
    assert code == 4, said
    assert re.search(reason, said)
    assert name in said


def test_feeds_that_fit_are_still_read(onnxcomp: Run, model: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "good.npz", x=FEEDS)
    code, said = onnxcomp("simplify", model, "--eval", tmp_path / "good.npz", "--force")
    assert code == 0, said


@pytest.mark.parametrize(
    ("option", "name", "content"),
    [
        ("--recipe", "r.toml", "x = " + "[" * 100_000),
        ("--recipe", "r.toml", "[[step]]\n" * 100_000),
        ("--recipe", "r.toml", 'a = "' + "x" * 5_000_000 + '"'),
        ("--plan", "p.json", "[" * 100_000),
        ("--plan", "p.json", '{"source_sha256": ' + "9" * 100_000 + "}"),
    ],
    ids=["nested recipe", "long recipe", "long text", "nested plan", "long number"],
)
def test_recipes_and_plans_that_are_none_are_wrong_usage(
    onnxcomp: Run, model: Path, tmp_path: Path, option: str, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    code, said = onnxcomp("optimize" if option == "--recipe" else "simplify", model, option, tmp_path / name)
    assert code == 2, said
    assert len(said) < 10_000
