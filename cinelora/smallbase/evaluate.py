"""How well a base model does on synthetic clips that no training saw.

In: a model folder in diffusers layout, the folder of metric weights if there is one. Out: PSNR of its autoencoder, of
its generated continuations and of a frozen first frame, its amount of motion, how often a shape follows its caption;
with weights also the kernel distance of generated, frozen and noise videos to the reference, and steadiness.

    python -m cinelora.smallbase.evaluate assets/wan-small --weights .cache/weights
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cinelora.core.cli import Parser, Progress, exit_status
from cinelora.core.config import Dtype, SampleConfig
from cinelora.core.files import whole_file, write_json
from cinelora.core.seeds import draw_noise
from cinelora.data.synthetic import COLOURS, DIRECTIONS, STUDIED, Scene, caption, draw_scene, render
from cinelora.features.clip_scores import consistency
from cinelora.features.motion import frame_difference
from cinelora.features.nets import NETS, open_net
from cinelora.metrics.distances import polynomial_mmd, standardise
from cinelora.metrics.gaps import consistency_gap
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
MOVING = 1.0  # a clip with a larger mean absolute difference of neighbouring frames, in levels, counts as moving
FIRST_SCORED = 4  # frames 5 to 17
SAMPLE = SampleConfig(steps=12, shift=2.0, batch_size=8)
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
LATE = 12  # frame at which the direction of a motion is measured
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
        generated: list[Frames] = []
        progress = Progress("clips")
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
            generated.append(decode_video(self.vae, latents))
            progress(f"{key}: generating", start + len(part), len(first))
        return np.concatenate(generated)


def psnr(generated: Frames, reference: Frames, first: int = FIRST_SCORED) -> NDArray[np.float64]:
    """dB of each clip over frames from `first` on."""
    squares = ((generated[:, first:].astype(float) - reference[:, first:]) ** 2).mean(axis=(1, 2, 3, 4))
    return np.asarray(10 * np.log10(255**2 / np.maximum(squares, 1e-3)))


def _centre(frame: NDArray[Any], colour: tuple[float, float, float]) -> NDArray[np.float64]:
    """Mean (row, column) of the pixels near `colour`; NaN if there are too few."""
    near = np.abs(frame / 255 - np.asarray(colour)).max(-1) < 0.25
    return np.argwhere(near).mean(0) if near.sum() > 6 else np.full(2, np.nan)


def turned_back(scene: Scene) -> Scene:
    """The same scene with the direction of its one shape reversed."""
    shape = scene.shapes[0]
    direction, _, speed = shape.move.partition(" ")
    return replace(scene, shapes=(replace(shape, move=f"{OPPOSITE[direction]} {speed}"),))


def single_motions() -> Iterator[Scene]:
    """Source scenes where nothing but one shape moves, and where it stays in the picture after a reversal."""
    for index in count():
        scene = draw_scene("source", SEED + 1, index)
        plain = scene.camera == "static" and scene.light == "steady light" and len(scene.shapes) == 1
        if not (plain and scene.shapes[0].move and not scene.shapes[0].turn):
            continue
        colour, clip = COLOURS[scene.shapes[0].colour], render(turned_back(scene))
        if all(np.isfinite(_centre(clip[frame], colour)).all() for frame in (0, LATE)):
            yield scene


def directions_followed(model: Model) -> float:
    """Share of clips whose shape follows a caption with the direction reversed."""
    scenes = list(islice(single_motions(), CLIPS // 2))
    reversed_scenes = [turned_back(scene) for scene in scenes]
    first = np.stack([render(scene)[0] for scene in scenes])
    generated = model.animate(first, [caption(scene) for scene in reversed_scenes], 17, "direction")
    followed = []
    for clip, scene in zip(generated, reversed_scenes, strict=True):
        shape = scene.shapes[0]
        colour = COLOURS[shape.colour]
        start, end = _centre(clip[0], colour), _centre(clip[LATE], colour)
        right, down = DIRECTIONS[shape.move.split()[0]]
        followed.append(bool(np.dot(end - start, (down, right)) > 1.0))
    return float(np.mean(followed))


def kernel_distances(net: Any, reference: Frames, sets: dict[str, Frames]) -> dict[str, float]:
    """kvd[tnv2] of each set of clips to the reference, frame 0 left out, matched pairs not counted."""
    feats = [NETS["tnv2"].extract(net, frames[:, 1:]) for frames in (reference, *sets.values())]
    real, *others = standardise(*feats)
    return {name: polynomial_mmd(real, other, matched=True) for name, other in zip(sets, others, strict=True)}


def steadiness(net: Any, reference: Frames, sets: dict[str, Frames]) -> dict[str, float]:
    """consistency[mnv2] of the reference and of each set, and of each set the mean gap to the same reference clip."""
    real = consistency(NETS["mnv2"].extract(net, reference))
    out = {"steadiness_real": float(real.mean())}
    for name, frames in sets.items():
        own = consistency(NETS["mnv2"].extract(net, frames))
        out |= {f"steadiness_{name}": float(own.mean()), f"gap_{name}": float(consistency_gap([own], [real]).mean())}
    return out


def evaluate_base(folder: Path, weights: Path | None = None) -> dict[str, float]:
    """All measures by name, as in docs/base.md. PSNR in dB over frames 5 to 17, ratios and shares without unit."""
    model, out = Model(folder), {}
    nets = {name: open_net(name, weights / f"{name}.safetensors").net for name in ("tnv2", "mnv2") if weights}
    for domain in STUDIED:
        scenes = [draw_scene(domain, SEED, index) for index in range(CLIPS)]
        reference = np.stack([render(scene) for scene in scenes])
        rebuilt = np.concatenate([decode_video(model.vae, encode_video(model.vae, pixels(t[None]))) for t in reference])
        generated = model.animate(reference[:, 0], [caption(scene) for scene in scenes], reference.shape[1], domain)
        frozen = np.repeat(reference[:, :1], reference.shape[1], axis=1)
        generated_db, frozen_db = psnr(generated, reference), psnr(frozen, reference)
        moves = frame_difference(reference) > MOVING
        out[f"{domain}_vae_psnr"] = float(psnr(rebuilt, reference, 0).mean())
        by_frame = ((rebuilt.astype(float) - reference) ** 2).mean(axis=(2, 3, 4))
        out[f"{domain}_vae_worst_frame"] = float((10 * np.log10(255**2 / by_frame)).mean(0).min())
        out[f"{domain}_generated_psnr"] = float(generated_db.mean())
        out[f"{domain}_frozen_psnr"] = float(frozen_db.mean())
        out[f"{domain}_moving_gain_db"] = float((generated_db - frozen_db)[moves].mean())
        out[f"{domain}_moving_share"] = float(moves.mean())
        out[f"{domain}_motion_ratio"] = float(frame_difference(generated).mean() / frame_difference(reference).mean())
        if nets:
            noise = np.random.default_rng(SEED).integers(0, 256, reference.shape, dtype=np.uint8)
            sets = {"generated": generated, "frozen": frozen, "noise": noise}
            out |= {f"{domain}_kvd_{of}": kvd for of, kvd in kernel_distances(nets["tnv2"], reference, sets).items()}
            steady = steadiness(nets["mnv2"], reference, {"generated": generated, "vae": rebuilt})
            out |= {f"{domain}_{name}": value for name, value in steady.items()}
    out["directions_followed"] = directions_followed(model)
    return {name: round(value, 4) for name, value in out.items()}


def write_evaluation(folder: Path, weights: Path | None) -> None:
    """`evaluate_base`, printed and written as `merit.json` into the folder."""
    measures = evaluate_base(folder, weights)
    write_json(folder / "merit.json", measures)
    print(json.dumps(measures, indent=2))


def sheet(model: Model, path: Path, clips: int = 6) -> None:
    """A PNG of `clips` (even) source clips in two columns: reference frames above, below them the generated ones."""
    scenes = [draw_scene("source", SEED, index) for index in range(clips)]
    reference = np.stack([render(scene) for scene in scenes])
    generated = model.animate(reference[:, 0], [caption(scene) for scene in scenes], reference.shape[1], "source")
    shown = np.stack([reference, generated], axis=1)[
        :, :, ::FIRST_SCORED
    ]  # (clips, 2, frames 1, 5, 9, 13, 17, H, W, 3)
    padded = np.pad(shown, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    n, _, frames, height, width, _ = padded.shape
    rows = padded.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, frames * width, 3)
    left, right = np.split(np.pad(rows, ((0, 0), (0, 6), (0, 0), (0, 0)), constant_values=255), 2)
    left = np.pad(left, ((0, 0), (0, 0), (0, 8), (0, 0)), constant_values=255)
    picture = Image.fromarray(np.concatenate([np.concatenate(left), np.concatenate(right)], axis=1))
    with whole_file(path) as temporary:
        picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(temporary)


def run(arguments: Sequence[str] | None) -> None:
    parser = Parser(description="Measure a base model on synthetic clips; writes merit.json into its folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, help="folder of metric weights (`make fetch`), for kvd and steadiness")
    parser.add_argument("--sheet", type=Path, default=None, help="only draw reference and generated frames as this PNG")
    options = parser.parse_args(arguments)
    if options.sheet:
        sheet(Model(options.folder), options.sheet)
    else:
        write_evaluation(options.folder, options.weights)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_status(lambda: run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
