"""The built-in datasets: synthetic clips, written as ordinary video files with captions.

In: `builtin:NAME`. Out: a dataset folder with `shot` and `split` columns, written once per recipe.
Every clip is a shot of its own. The train clips of `film` and `film-select` are the same, their held-out
clips are not: learning rates are chosen on one and results reported on the other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from cinelora.core.cli import UserError
from cinelora.core.files import content_hash, whole_folder, write_csv

BUILTIN = "builtin:"
FPS = 16.0
SETS_VERSION = 3  # raise when the clips that a recipe gives change


@dataclass(frozen=True)
class SplitSpec:
    """`count` clips of one domain, drawn with `seed`."""

    split: str
    domain: str
    seed: int
    count: int


FILM_TRAIN = SplitSpec("train", "film", 1, 48)
FILM_HELDOUT = SplitSpec("heldout", "film", 2, 48)
SOURCE_OTHER = SplitSpec("other", "source", 4, 32)
SETS: dict[str, tuple[SplitSpec, ...]] = {
    "film": (FILM_TRAIN, FILM_HELDOUT, SOURCE_OTHER),
    "film-select": (FILM_TRAIN, SplitSpec("heldout", "film", 3, 32)),
    "film-control": (SplitSpec("train", "source", 5, 48), FILM_HELDOUT, SOURCE_OTHER),
}


def data_path(path: str, cache_dir: Path) -> str:
    """`path` itself, or the folder of a built-in set, written on first use. Raises UserError for unknown names."""
    if not path.startswith(BUILTIN):
        return path
    name = path.removeprefix(BUILTIN)
    if name not in SETS:
        raise UserError(f"data.path={path}: no such built-in set; there are {', '.join(SETS)}")
    return str(ensure(name, cache_dir))


def ensure(name: str, cache_dir: Path) -> Path:
    """The set's folder in the cache; whole or absent, also with two writers or after a crash."""
    recipe = {"parts": [asdict(part) for part in SETS[name]], "version": SETS_VERSION}
    folder = cache_dir / "sets" / f"{name}-{content_hash(recipe, 12)}"
    if folder.is_dir():
        return folder
    with whole_folder(folder) as temporary:
        write_set(temporary, SETS[name])
    return folder


def write_set(folder: Path, parts: tuple[SplitSpec, ...]) -> None:
    """Draw the clips and write them with `metadata.csv` (video, prompt, shot, split)."""
    from cinelora.data.synthetic import make_clip
    from cinelora.data.video import write_clips

    rows = []
    for part in parts:
        names = [f"{part.split}-{part.domain}-{index:03d}" for index in range(part.count)]
        clips, captions = zip(*(make_clip(part.domain, part.seed, i) for i in range(part.count)), strict=True)
        write_clips([folder / f"{name}.mp4" for name in names], clips, FPS)
        rows += [[f"{name}.mp4", caption, name, part.split] for name, caption in zip(names, captions, strict=True)]
    write_csv(folder / "metadata.csv", ["video", "prompt", "shot", "split"], rows)
