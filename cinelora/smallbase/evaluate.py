"""What a base model can do, measured on made clips it has never seen.

In: a model folder in diffusers layout, the TransNetV2 weights if there are any. Out: PSNR of its autoencoder, of its
generated continuations and of a frozen first frame, its amount of motion, how often it goes where the caption says,
and the kernel distance of generated, frozen and noise videos to the true ones.

    python -m cinelora.smallbase.evaluate assets/wan-small --tnv2 .cache/weights/tnv2.safetensors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cinelora.core.config import Dtype, SampleConfig
from cinelora.core.files import whole_file, write_json
from cinelora.core.seeds import draw_noise
from cinelora.data.synthetic import COLOURS, Scene, caption, draw_scene, render
from cinelora.features.nets import open_net, transnet
from cinelora.metrics.distances import polynomial_mmd, standardise
from cinelora.wan.encoding import (
    Conditions,
    condition_latents,
    decode_video,
    encode_image,
    encode_text,
    encode_video,
    pixels,
)
from cinelora.wan.loading import load_image_encoder, load_text_encoder, load_transformer, load_vae
from cinelora.wan.sampler import denoise

SEED = 4242
CLIPS = 96
MOVING = 1.0  # levels of mean absolute difference between neighbouring frames; above it a clip moves
FIRST_SCORED = 4  # frames 5 to 17
SAMPLE = SampleConfig(steps=12, shift=2.0, batch_size=8)
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
LATE = 12  # frame at which a motion is read off
WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
Frames = NDArray[np.uint8]


class Model:
    """The loaded parts and one call that animates first frames by captions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transformer = load_transformer(folder, Dtype.float32, short_text=True)
        self.vae = load_vae(folder)
        self.tokenizer, self.text = load_text_encoder(folder)
        self.processor, self.tower = load_image_encoder(folder)

    def animate(self, first: Frames, captions: list[str], frames: int, key: str) -> Frames:
        """uint8 (N, F, H, W, 3) from first frames (N, H, W, 3)."""
        made = []
        for start in range(0, len(first), SAMPLE.batch_size):
            part, words = first[start : start + SAMPLE.batch_size], captions[start : start + SAMPLE.batch_size]
            condition = condition_latents(self.vae, pixels(part[:, None])[:, :, 0], frames)
            noise = torch.stack(
                [draw_noise((16, *condition.shape[2:]), SEED, key, start + i) for i in range(len(part))]
            )
            latents = denoise(
                self.transformer,
                self.folder,
                SAMPLE,
                noise,
                Conditions(
                    condition,
                    torch.cat([encode_image(self.processor, self.tower, image) for image in part]),
                    torch.cat([encode_text(self.tokenizer, self.text, text) for text in words]),
                ),
                None,
            )
            made.append(decode_video(self.vae, latents))
        return np.concatenate(made)


def psnr(made: Frames, truth: Frames, first: int = FIRST_SCORED) -> NDArray[np.float64]:
    """dB of each clip over frames from `first` on."""
    squares = ((made[:, first:].astype(float) - truth[:, first:]) ** 2).mean(axis=(1, 2, 3, 4))
    return np.asarray(10 * np.log10(255**2 / np.maximum(squares, 1e-3)))


def motion(frames: Frames) -> NDArray[np.float64]:
    """Mean absolute difference of neighbouring frames in levels, per clip."""
    return np.asarray(np.abs(np.diff(frames.astype(float), axis=1)).mean(axis=(1, 2, 3, 4)))


def _centre(frame: NDArray[Any], colour: tuple[float, float, float]) -> NDArray[np.float64]:
    near = np.abs(frame / 255 - np.asarray(colour)).max(-1) < 0.25
    return np.argwhere(near).mean(0) if near.sum() > 6 else np.full(2, np.nan)


def turned_back(scene: Scene) -> Scene:
    """The same scene with its one shape going the opposite way."""
    shape = scene.shapes[0]
    way, _, speed = shape.move.partition(" ")
    return replace(scene, shapes=(replace(shape, move=f"{OPPOSITE[way]} {speed}".strip()),))


def single_motions(count: int) -> list[Scene]:
    """Source scenes in which one shape alone moves and, sent the other way, stays in the picture."""
    found: list[Scene] = []
    for index in range(100_000):
        scene = draw_scene("source", SEED + 1, index)
        plain = scene.camera == "static" and scene.light == "steady light" and len(scene.shapes) == 1
        if not (plain and scene.shapes[0].move and not scene.shapes[0].turn):
            continue
        colour, clip = COLOURS[scene.shapes[0].colour], render(turned_back(scene))
        if all(np.isfinite(_centre(clip[frame], colour)).all() for frame in (0, LATE)):
            found.append(scene)
            if len(found) == count:
                break
    return found


def directions_followed(model: Model, count: int) -> float:
    """Share of clips that go where a caption with the direction reversed says."""
    scenes = single_motions(count)
    reversed_scenes = [turned_back(scene) for scene in scenes]
    first = np.stack([render(scene)[0] for scene in scenes])
    made = model.animate(first, [caption(scene) for scene in reversed_scenes], 17, "direction")
    followed = []
    for clip, scene in zip(made, reversed_scenes, strict=True):
        shape = scene.shapes[0]
        colour = COLOURS[shape.colour]
        start, end = _centre(clip[0], colour), _centre(clip[LATE], colour)
        followed.append(bool(np.dot(end - start, WAYS[shape.move.split()[0]]) > 1.0))
    return float(np.mean(followed))


def kernel_distances(net: Any, truth: Frames, sets: dict[str, Frames]) -> dict[str, float]:
    """kvd[tnv2] of each set of clips to the true ones, frame 0 left out, matched pairs not counted."""

    def seen(frames: Frames) -> NDArray[np.float32]:
        return transnet.extract(net, frames[:, 1:])

    real, *others = standardise(seen(truth), *map(seen, sets.values()))
    return {name: polynomial_mmd(real, other, matched=True) for name, other in zip(sets, others, strict=True)}


def figures_of_merit(
    folder: Path, say: Callable[[str], None], clips: int = CLIPS, tnv2: Path | None = None
) -> dict[str, float]:
    """All figures; see the keys. PSNR in dB over frames 5 to 17, ratios and shares without unit."""
    model, out = Model(folder), {}
    net = open_net("tnv2", tnv2).net if tnv2 else None
    for domain in ("source", "film"):
        scenes = [draw_scene(domain, SEED, index) for index in range(clips)]
        truth = np.stack([render(scene) for scene in scenes])
        say(f"measuring {clips} {domain} clips")
        rebuilt = np.concatenate([decode_video(model.vae, encode_video(model.vae, pixels(t[None]))) for t in truth])
        made = model.animate(truth[:, 0], [caption(scene) for scene in scenes], truth.shape[1], domain)
        frozen = np.repeat(truth[:, :1], truth.shape[1], axis=1)
        moves = motion(truth) > MOVING
        out[f"{domain}_vae_psnr"] = float(psnr(rebuilt, truth, 0).mean())
        by_frame = ((rebuilt.astype(float) - truth) ** 2).mean(axis=(2, 3, 4))
        out[f"{domain}_vae_worst_frame"] = float((10 * np.log10(255**2 / by_frame)).mean(0).min())
        out[f"{domain}_generated_psnr"] = float(psnr(made, truth).mean())
        out[f"{domain}_frozen_psnr"] = float(psnr(frozen, truth).mean())
        out[f"{domain}_moving_gain_db"] = float((psnr(made, truth) - psnr(frozen, truth))[moves].mean())
        out[f"{domain}_moving_share"] = float(moves.mean())
        out[f"{domain}_motion_ratio"] = float(motion(made).mean() / motion(truth).mean())
        if net is not None:
            noise = np.random.default_rng(SEED).integers(0, 256, truth.shape, dtype=np.uint8)
            found = kernel_distances(net, truth, {"generated": made, "frozen": frozen, "noise": noise})
            out |= {f"{domain}_kvd_{name}": value for name, value in found.items()}
    out["directions_followed"] = directions_followed(model, clips // 2)
    return {name: round(value, 4) for name, value in out.items()}


def sheet(model: Model, path: Path, clips: int = 6) -> None:
    """A PNG of source clips that no training saw: true frames above, what the model makes of the first below."""
    scenes = [draw_scene("source", SEED, index) for index in range(clips)]
    truth = np.stack([render(scene) for scene in scenes])
    made = model.animate(truth[:, 0], [caption(scene) for scene in scenes], truth.shape[1], "source")
    shown = np.stack([truth, made], axis=1)[:, :, ::FIRST_SCORED]  # (clips, 2, frames 1, 5, 9, 13, 17, H, W, 3)
    padded = np.pad(shown, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    halves = [np.concatenate([_rows(clip) for clip in half]) for half in np.split(padded, 2)]
    picture = Image.fromarray(np.concatenate([halves[0], np.full_like(halves[0][:, :8], 255), halves[1]], axis=1))
    with whole_file(path) as temporary:
        picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(temporary)


def _rows(clip: Frames) -> Frames:
    """(2, F, H, W, 3) -> one picture, F frames side by side in two rows and a gap below."""
    rows = [np.concatenate(list(row), axis=1) for row in clip]
    return np.concatenate([*rows, np.full_like(rows[0][:6], 255)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure a base model on made clips; writes merit.json into its folder."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tnv2", type=Path, default=None, help="TransNetV2 weights (`make fetch`), for kvd")
    parser.add_argument("--sheet", type=Path, default=None, help="write true and generated frames to this PNG only")
    options = parser.parse_args()
    if options.sheet:
        return sheet(Model(options.folder), options.sheet)
    merit = figures_of_merit(options.folder, print, tnv2=options.tnv2)
    write_json(options.folder / "merit.json", merit)
    print(json.dumps(merit, indent=2))


if __name__ == "__main__":
    main()
