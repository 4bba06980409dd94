"""Feature nets behind one signature: name -> what it is, what it sees, how to load it, how to run it.

    loaded = NETS["i3d"].load(path)                        # UserError: wrong or missing file
    features = NETS["i3d"].extract(loaded.net, frames)     # uint8 (N, T, H, W, 3) -> float32

No weights come with this package: each is a path given by the user, see the file of the net.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cinelora.nets import clip, dino, i3d, lpips, videomae, vjepa
from cinelora.nets.files import Loaded, WeightFile
from cinelora.nets.frames import Floats

SQUASH = "squash, bilinear, not antialiased, float"
SHORTER = "shorter side, bilinear, antialiased, float, no crop"
CROP = "shorter side, bicubic, antialiased, float, centre crop"
_SQUARE = (224, 224)


@dataclass(frozen=True)
class Net:
    """A feature net: one of three kinds.

    "video": uint8 (N, T, H, W, 3) -> (N, dimension). "frame": the same -> (N, T, dimension), frames unordered.
    "pair": two of them -> (N, T), a distance per frame, dimension 1.
    """

    name: str
    kind: str
    dimension: int
    size: tuple[int, int] | None  # pixels, height then width; with SHORTER the sides are a lower bound; None: as given
    resize: str
    least_frames: int
    most_frames: int | None  # None: any number
    files: tuple[WeightFile, ...]
    folder: bool  # the path is a folder that holds `files`, not a file
    load: Callable[..., Loaded]  # (path, sha256 pin or pins by role, device) -> Loaded
    extract: Callable[..., Floats]  # (net, frames, batch) or, for a pair, (net, frames, frames, batch)


def _clip(name: str) -> Net:
    files, load = (clip.FILES[name],), partial(clip.load, name)
    return Net(name, "frame", clip.DIMENSION[name], _SQUARE, CROP, 1, None, files, True, load, clip.extract)


_ALL = (
    Net("i3d", "video", 400, _SQUARE, SQUASH, 10, None, (i3d.STATE_FILE,), False, i3d.load, i3d.extract),
    Net("videomae", "video", 1408, _SQUARE, SQUASH, 16, 16, (videomae.FILE,), False, videomae.load, videomae.extract),
    Net("vjepa", "video", 1280, _SQUARE, SQUASH, 16, 16, vjepa.FILES, True, vjepa.load, vjepa.extract),
    _clip("clip_b32"),
    _clip("clip_l14"),
    Net("dino", "frame", 768, _SQUARE, SHORTER, 1, None, (dino.FILE,), False, dino.load, dino.extract),
    Net("lpips", "pair", 1, None, "none", 1, None, (lpips.TRUNK_FILE,), False, lpips.load, lpips.extract),
)
NETS: dict[str, Net] = {net.name: net for net in _ALL}
