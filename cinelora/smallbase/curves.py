"""The two logs of the pretraining of the small base as one figure.

In: the state folder of `python -m cinelora.smallbase` (`vae.csv`, `denoiser.csv`). Out: one PNG.
Run:  python -m cinelora.smallbase.curves .cache/pretrain --out assets/wan-small/curves.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.files import whole_file

WIDTH = 7.0  # inches
STYLE: Mapping[RcKeyType, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
DOMAINS = {"source": "#0072B2", "film": "#D55E00"}  # Okabe and Ito 2008


def read_log(path: Path) -> pd.DataFrame | None:
    """A training log, None if there is none; of steps repeated after a stop, the last run counts."""
    return pd.read_csv(path).drop_duplicates("step", keep="last") if path.exists() else None


def autoencoder(axes: Axes, log: pd.DataFrame) -> None:
    """PSNR on held-out clips, mean over frames and the worst frame."""
    for domain, colour in DOMAINS.items():
        axes.plot(log["step"], log[f"{domain}_db"], color=colour, label=f"{domain}, mean")
        axes.plot(log["step"], log[f"{domain}_worst_frame_db"], ":", color=colour, label=f"{domain}, worst frame")
    axes.set(title="autoencoder: PSNR of held-out clips", xlabel="step", ylabel="dB")
    axes.legend(frameon=False)


def denoiser(axes: Axes, log: pd.DataFrame) -> None:
    """Flow loss on held-out clips, mean over the five times; film clips are never trained on."""
    axes.plot(log["step"], log["loss"], color="0.6", linewidth=0.8, label="training clips")
    for domain, colour in DOMAINS.items():
        times = [name for name in log.columns if name.startswith(f"{domain}_t")]
        axes.plot(log["step"], log[times].mean(axis=1), color=colour, label=f"{domain}, held out")
    axes.set(title="denoiser: flow loss", xlabel="step", yscale="log")
    axes.legend(frameon=False)


def run(arguments: Sequence[str] | None) -> None:
    parser = Parser(description="Draw the curves of a pretraining.")
    parser.add_argument("state", type=Path, help="its state folder")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    options = parser.parse_args(arguments)
    logs = [
        (draw, read_log(options.state / name)) for draw, name in ((autoencoder, "vae.csv"), (denoiser, "denoiser.csv"))
    ]
    known = [(draw, log) for draw, log in logs if log is not None]
    if not known:
        raise UserError(f"{options.state}: holds no vae.csv and no denoiser.csv; give the state folder of `make base`")
    with matplotlib.rc_context(dict(STYLE)):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        for axes, (draw, log) in zip(figure.subplots(1, len(known), squeeze=False)[0], known, strict=True):
            draw(axes, log)
        with whole_file(options.out) as temporary:
            figure.savefig(temporary, dpi=200, metadata={"Software": None})
    print(options.out)


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_status(lambda: run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
