"""Synthetic clips of drawn shapes. Two domains are studied: "source", which the denoiser of the small base is trained
on, and "film", which adapters have to learn.

Film clips have the shapes of source clips, only slow moves, steady light, and captions in the same words; but within
every clip dusk falls, colours fade and black bars slide in. Neither the first frame nor the caption tells of it.
The autoencoder of the base is trained on two domains of its own, with more kinds of scenes and a milder film.

In: a domain, a seed, an index. Out: uint8 frames (F, H, W, 3) and the caption that describes their motion; equal
inputs give equal clips. `cinelora/data/sample_sets.py` writes them as ordinary video files.

Legend: F frames, H rows, W columns. Lengths are in half picture heights, the middle is (0, 0), x right, y down;
time runs from 0 (first frame) to 1 (17th), whatever F is. The first frame does not reveal the motion: where a shape
starts is independent of its direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinelora.core.seeds import counter_seed

Array = NDArray[np.floating[Any]]


def _polygon(sides: int, apothem: float) -> Callable[[Array, Array], Array]:
    angles = [np.pi / 2 + 2 * np.pi * k / sides for k in range(sides)]
    normals = [(np.float32(np.cos(angle)), np.float32(np.sin(angle))) for angle in angles]
    return lambda u, v: reduce(np.maximum, (a * u + b * v for a, b in normals)) - np.float32(apothem)


DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda u, v: np.hypot(u, v) - 1,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - np.float32(0.72)) - np.float32(0.3),
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - np.float32(0.86),
    "triangle": _polygon(3, 0.6),
}  # from (u right, v down, in the shape's own frame) to the edge of a shape of radius 1; negative inside

LENGTH = 17  # frames in which a motion named in the caption runs from beginning to end
COLOURS = {
    "red": (0.90, 0.12, 0.12), "orange": (1.00, 0.55, 0.08), "yellow": (0.97, 0.92, 0.20),
    "green": (0.15, 0.75, 0.25), "cyan": (0.20, 0.85, 0.90), "blue": (0.15, 0.28, 0.95),
    "purple": (0.60, 0.18, 0.80), "white": (0.96, 0.96, 0.96),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "ring")
BACKGROUNDS = {
    "plain": (0.7, 1.1, 1), "cloudy": (1.8, 4.5, 3), "striped": (7.0, 11.0, 1), "checkered": (6.0, 9.0, 1),
}  # lowest and highest frequency in radians per half height, number of waves  # fmt: skip
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
SPEEDS = {"slowly": 0.4, "fast": 0.8}  # half heights in the whole clip: 13 and 26 of 64 rows
TURN = 2.4  # radians in the whole clip
ZOOMS = {"in slowly": 0.8, "in fast": 0.62, "out slowly": 1.25, "out fast": 1.6}
CAMERAS = {
    "static": (0.0, 0.0, 1.0),
    **{f"zooms {name}": (0.0, 0.0, scale) for name, scale in ZOOMS.items()},
    **{f"pans {to} {pace}": (d[0] * v, d[1] * v, 1.0) for to, d in DIRECTIONS.items() for pace, v in SPEEDS.items()},
}  # what the camera does in the whole clip: shift right, shift down, scale
LIGHTS = {"steady light": 1.0, "light brightens": 1.45, "light darkens": 0.5}

DUSK = ((-0.02, 0.02, 0.10), (0.16, 0.02, -0.12))  # added to shadows (blue) and to lights (amber)


@dataclass(frozen=True)
class Look:
    """What a film does to its picture by the end of a clip; all of it begins at nothing in the first frame."""

    light: float  # factor
    colour: float  # factor of saturation
    vignette: float  # share of light lost at the edge
    bars: float  # height of a bar in half heights


@dataclass(frozen=True)
class Domain:
    """How the scenes of a domain are drawn. `key`: of its random numbers; domains that share one have like scenes."""

    key: str
    backgrounds: tuple[str, ...]
    shapes: tuple[float, float, float]  # chances of one, two and three
    size: float  # factor of the radii
    tilt: float  # largest angle in the first frame, radians
    turns: float  # chance that a square or triangle turns
    zooms: float  # chance that a moving camera zooms
    paces: tuple[str, ...]
    steady_light: bool = False
    look: Look | None = None


_SOURCE = Domain(
    key="plain",
    backgrounds=("plain", "cloudy", "striped"),
    shapes=(0.6, 0.4, 0.0),
    size=1.25,
    tilt=0.0,
    turns=0.0,
    zooms=0.0,
    paces=("slowly", "fast"),
)
_VARIED = Domain(
    key="source",
    backgrounds=tuple(BACKGROUNDS),
    shapes=(0.5, 0.38, 0.12),
    size=1.0,
    tilt=0.3,
    turns=0.3,
    zooms=0.35,
    paces=("slowly", "fast"),
)
DOMAINS = {
    # what the denoiser of the small base is trained on, and what adapters have to learn
    "source": _SOURCE,
    "film": replace(
        _SOURCE,
        key="plain film",
        paces=("slowly",),
        steady_light=True,
        look=Look(light=0.8, colour=0.2, vignette=0.5, bars=0.45),
    ),
    # what its autoencoder is trained on: more kinds of scenes, and a milder film
    "varied": _VARIED,
    "varied film": replace(
        _VARIED,
        key="film",
        backgrounds=_SOURCE.backgrounds,
        shapes=_SOURCE.shapes,
        size=_SOURCE.size,
        paces=("slowly",),
        steady_light=True,
        look=Look(light=0.8, colour=0.55, vignette=0.3, bars=0.3),
    ),
}
STUDIED = ("source", "film")


@dataclass(frozen=True)
class Shape:
    """One flat shape; `move` is "" (still) or a direction with a speed, `turn` -1, 0 or 1 (clockwise)."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float
    angle: float
    move: str
    turn: int


@dataclass(frozen=True)
class Scene:
    """Everything that determines a clip but its size."""

    domain: str
    shapes: tuple[Shape, ...]
    background: str
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    waves: tuple[tuple[float, float, float], ...]  # x and y frequency in radians per half height, phase
    camera: str
    light: str


def make_clip(
    domain: str, seed: int, index: int, size: tuple[int, int] = (64, 64), frames: int = LENGTH
) -> tuple[NDArray[np.uint8], str]:
    """Frames uint8 (F, H, W, 3) and the caption of clip `index`; size is (H, W)."""
    scene = draw_scene(domain, seed, index)
    return render(scene, size, frames), caption(scene)


def make_caption(domain: str, seed: int, index: int) -> str:
    """The caption of clip `index` without drawing it."""
    return caption(draw_scene(domain, seed, index))


def draw_scene(domain: str, seed: int, index: int) -> Scene:
    """The scene of this clip: a shape moves with probability 0.7, the camera with 0.5."""
    if domain not in DOMAINS:
        raise ValueError(f"domain={domain!r}: must be one of {list(DOMAINS)}")
    kind = DOMAINS[domain]
    random = np.random.default_rng(counter_seed(seed, "clip", kind.key, index))
    background = str(random.choice(kind.backgrounds))
    waves = _draw_waves(random, background)
    hue = random.uniform(0, 1)
    dark, light = random.uniform(0.12, 0.28), random.uniform(0.45, 0.65)
    colours = (_muted(random, hue, dark), _muted(random, hue + random.uniform(-0.2, 0.2), light))
    shapes = _draw_shapes(random, kind)
    lamp = str(random.choice(list(LIGHTS), p=(0.64, 0.18, 0.18)))
    lamp = "steady light" if kind.steady_light else lamp
    camera = _draw_camera(random, kind)
    if camera == "static" and lamp == "steady light" and not any(s.move or s.turn for s in shapes):
        camera = "pans left slowly" if random.uniform() < 0.5 else "pans right slowly"
    return Scene(domain, shapes, background, colours, waves, camera, lamp)


def caption(scene: Scene) -> str:
    """What moves and how; at most about 30 words."""
    parts = []
    for shape in scene.shapes:
        words = [f"a {shape.colour} {shape.kind}", f"moves {shape.move}" if shape.move else "stays"]
        words += ["turning clockwise"] * (shape.turn > 0) + ["turning back"] * (shape.turn < 0)
        parts.append(" ".join(words))
    parts += [f"{scene.background} background", f"camera {scene.camera}", scene.light]
    return ", ".join(parts)


def render(scene: Scene, size: tuple[int, int] = (64, 64), frames: int = LENGTH) -> NDArray[np.uint8]:
    """Frames uint8 (F, H, W, 3) of a scene."""
    height, width = size
    time: Array = np.arange(frames, dtype=np.float32) / np.float32(LENGTH - 1)
    y, x = np.meshgrid(
        (np.arange(height, dtype=np.float32) + 0.5) * (2 / height) - 1,
        ((np.arange(width, dtype=np.float32) + 0.5) * 2 - width) / height,
        indexing="ij",
    )
    world_x, world_y, scale = _seen(scene.camera, time, x, y)
    mix = _pattern(scene, world_x, world_y)
    dark, light = (_column(c) for c in scene.colours)
    video: Array = dark + (light - dark) * mix  # (3, F, H, W)
    for shape in scene.shapes:
        cover = _cover(shape, world_x, world_y, time, scale * (2 / height))
        video += (_column(COLOURS[shape.colour]) - video) * cover
    video *= (1 + (LIGHTS[scene.light] - 1) * time)[:, None, None]
    look = DOMAINS[scene.domain].look
    if look:
        video = _film(video, look, time, x, y)
    levels = np.clip(video, 0, 1) * 255 + 0.5
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 3, 0))


def _column(colour: tuple[float, float, float]) -> Array:
    """float32 (3, 1, 1, 1), to be combined with video (3, F, H, W)."""
    return np.asarray(colour, dtype=np.float32).reshape(3, 1, 1, 1)


def _muted(random: np.random.Generator, hue: float, value: float) -> tuple[float, float, float]:
    strength = random.uniform(0.15, 0.4)
    wheel = [0.5 + 0.5 * np.cos(2 * np.pi * (hue - k / 3)) for k in range(3)]
    red, green, blue = (float(value * (1 - strength + strength * w)) for w in wheel)
    return red, green, blue


def _draw_waves(random: np.random.Generator, background: str) -> tuple[tuple[float, float, float], ...]:
    """The waves of `BACKGROUNDS`; for checkered a second one at right angles."""
    low, high, count = BACKGROUNDS[background]
    waves = []
    for _ in range(count):
        frequency, angle = random.uniform(low, high), random.uniform(0, np.pi)
        waves.append((frequency * np.cos(angle), frequency * np.sin(angle), random.uniform(0, 2 * np.pi)))
    if background == "checkered":
        waves.append((-waves[0][1], waves[0][0], random.uniform(0, 2 * np.pi)))
    return tuple((float(a), float(b), float(c)) for a, b, c in waves)


def _draw_shapes(random: np.random.Generator, domain: Domain) -> tuple[Shape, ...]:
    count = int(random.choice([1, 2, 3], p=domain.shapes))
    names = random.permutation(list(COLOURS))[:count]
    shapes: list[Shape] = []
    while len(shapes) < count:
        x, y = random.uniform(-0.62, 0.62, 2)
        radius = (random.uniform(0.24, 0.36) + (0.06 if count == 1 else 0.0)) * domain.size
        if any((s.x - x) ** 2 + (s.y - y) ** 2 < (0.8 * (s.radius + radius)) ** 2 for s in shapes):
            continue
        kind = str(random.choice(SHAPES))
        move = ""
        if random.uniform() < 0.7:
            move = f"{random.choice(list(DIRECTIONS))} {random.choice(domain.paces)}"
        spins = random.uniform() < domain.turns and kind not in ("circle", "ring")
        turn = int(random.choice([-1, 1])) if spins else 0
        angle = random.uniform(-domain.tilt, domain.tilt)
        shapes.append(Shape(kind, str(names[len(shapes)]), float(x), float(y), float(radius), float(angle), move, turn))
    return tuple(shapes)


def _draw_camera(random: np.random.Generator, domain: Domain) -> str:
    if random.uniform() < 0.5:
        return "static"
    if random.uniform() < domain.zooms:
        return f"zooms {random.choice([name for name in ZOOMS if name.split()[1] in domain.paces])}"
    return f"pans {random.choice(list(DIRECTIONS))} {random.choice(domain.paces)}"


def _seen(camera: str, time: Array, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """World x and y (F, H, W) of each pixel and world lengths per picture length (F, 1, 1)."""
    right, down, factor = CAMERAS[camera]
    move_x, move_y, scale = time * right, time * down, np.float32(factor) ** time
    move_x, move_y, scale = (m.astype(np.float32)[:, None, None] for m in (move_x, move_y, scale))
    return scale * x + move_x, scale * y + move_y, scale


def _pattern(scene: Scene, x: Array, y: Array) -> Array:
    """The background between its dark (0) and light (1) colour, (F, H, W)."""
    waves = [np.sin(np.float32(a) * x + np.float32(b) * y + np.float32(phase)) for a, b, phase in scene.waves]
    if scene.background == "cloudy":
        return np.asarray(0.5 + sum(waves) / (2 * len(waves)), dtype=np.float32)
    if scene.background == "checkered":
        waves = [waves[0] * waves[1]]
    hard = {"plain": 0.0, "striped": 1.5, "checkered": 3.0}[scene.background]
    wave = np.tanh(hard * waves[0]) / np.tanh(hard) if hard else waves[0]
    return np.asarray(0.5 + 0.5 * wave, dtype=np.float32)


def _cover(shape: Shape, x: Array, y: Array, time: Array, pixel: Array) -> Array:
    """How much of each pixel the shape covers, 0..1 (F, H, W); `pixel` is a pixel's world length (F, 1, 1)."""
    direction, _, speed = shape.move.partition(" ")
    dx, dy = DIRECTIONS.get(direction, (0.0, 0.0))
    path = (time * SPEEDS.get(speed, 0.0))[:, None, None]
    angle = (shape.angle + TURN * shape.turn * time)[:, None, None]
    cos, sin = np.cos(angle) / shape.radius, np.sin(angle) / shape.radius
    x, y = x - (shape.x + dx * path), y - (shape.y + dy * path)
    distance = DISTANCES[shape.kind](cos * x + sin * y, cos * y - sin * x)
    return np.asarray(np.clip(0.5 - distance * (shape.radius / pixel), 0, 1), dtype=np.float32)


def _film(video: Array, look: Look, time: Array, x: Array, y: Array) -> Array:
    """Dusk and bars; video (3, F, H, W) in 0..1."""
    now = np.minimum(time, 1)[:, None, None]
    grey = np.einsum("cfhw,c->fhw", video, np.asarray([0.3, 0.59, 0.11], dtype=np.float32))
    shadow, warm = (_column(tint) for tint in DUSK)
    dusk = grey + (video - grey) * np.float32(look.colour) + shadow + (warm - shadow) * grey
    video = video + (dusk * np.float32(look.light) - video) * now
    video *= 1 - np.float32(look.vignette) * (x * x + y * y) * now
    return video * (np.abs(y) < 1 - np.float32(look.bars) * now)
