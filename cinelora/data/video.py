"""Video files to pixels and back, by time stamps (PyAV, NumPy, Pillow; no torch).

In: a video file. Out: uint8 RGB arrays in 0..255, layout (T, H, W, 3): T frames, H rows, W columns.
A time is in seconds after the file's first frame. Rotation tags are ignored: a clip comes out as stored.
Raises UserError naming the file when it cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, repeat
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from cinelora.core.cli import UserError
from cinelora.core.config import Resize
from cinelora.core.files import whole_file

av.logging.set_level(av.logging.PANIC)  # errors are raised; FFmpeg's own log would repeat them

# Matroska rounds time stamps to whole milliseconds, so a frame may carry one half a millisecond late.
TIME_TOLERANCE_SECONDS = 0.6e-3
# The exact path of the colour conversion, so that pixels do not depend on the CPU's vector instructions.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# crf 10 is visually lossless, so the file shows the model and not the codec. Macroblock-tree rate control is
# off because with it x264 core 165 wrote other bytes from run to run (40 runs of one thread, measured here).
_X264 = {"crf": "10", "threads": "1", "x264-params": "mbtree=0"}
_BT601 = 6  # H.273 matrix "SMPTE 170M": said in the file, or players guess BT.709 for large pictures


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels, number of frames, seconds on screen, mean frames per second."""

    width: int
    height: int
    frames: int
    seconds: float
    fps: float


def probe(path: Path) -> VideoInfo:
    """Size and timing, by decoding every frame: headers of truncated or uneven files are wrong.

    Raises UserError for a file that is no video, has no frames or no duration.
    """
    frames = 0
    for last, until in _shown(path, 0.0):
        width, height, seconds = last.width, last.height, until
        frames += 1
    if seconds <= 0:
        raise UserError(f"{path}: the video lasts {seconds} seconds; export it again or remove it")
    return VideoInfo(width, height, frames, seconds, frames / seconds)


def decode_window(
    path: Path, start_seconds: float, fps: float, frames: int, height: int, width: int, resize: Resize
) -> NDArray[np.uint8]:
    """`frames` frames resampled to `fps` from `start_seconds` on: uint8 (frames, height, width, 3), 0..255.

    Frame k is the one on screen at start + k / fps: the last whose time stamp is not later. So a source of
    uneven frame times keeps its speed; no frame is blended. Raises UserError when the video ends before that.
    """
    times = [start_seconds + k / fps + TIME_TOLERANCE_SECONDS for k in range(frames)]
    out = np.empty((frames, height, width, 3), dtype=np.uint8)
    filled = 0
    for frame, until in _shown(path, times[0]):
        if times[filled] >= until:
            continue
        image = resize_rgb(_rgb(frame), height, width, resize)
        while filled < frames and times[filled] < until:
            out[filled] = image
            filled += 1
        if filled == frames:
            return out
    raise UserError(
        f"{path}: {filled} of {frames} frames at {fps} fps from second {start_seconds}, then the video ends; "
        "start earlier or ask for fewer frames"
    )


def read_all(path: Path, most: int | None = None) -> NDArray[np.uint8]:
    """Every frame in order, or the first `most`, at its own size: uint8 (T, H, W, 3), 0..255.

    Time stamps are ignored.
    """
    with _opened(path) as (container, stream):
        frames = container.decode(stream)
        return np.stack([_rgb(frame) for frame in islice(chain([_first(frames, path)], frames), most)])


def write_mp4(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """Write uint8 (T, H, W, 3) as H.264 yuv420p, whole or not at all; H and W even, T at least 1.

    The same frames give the same bytes: one encoder thread, no dates in the file.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or 0 in frames.shape or frames.shape[3] != 3:
        raise ValueError(f"frames={frames.dtype}{frames.shape}: must be uint8 (T, H, W, 3) with T > 0")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"frames={frames.shape}: height and width must be even for yuv420p")
    undated = {"fflags": "+bitexact"}
    with whole_file(path) as temporary, av.open(str(temporary), "w", options=undated) as container:
        rate = Fraction(fps).limit_denominator(1001)  # 24000/1001 and the like stay exact
        stream = container.add_stream("libx264", rate=rate, options=_X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = _BT601
        for image in frames:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", interpolation=_EXACT)))
        container.mux(stream.encode(None))


def write_clips(paths: Sequence[Path], clips: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """`write_mp4` of each clip, in threads: short clips spend most of their time waiting for the disk."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(write_mp4, paths, clips, repeat(fps)))


def resize_rgb(image: NDArray[np.uint8], height: int, width: int, resize: Resize) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) to uint8 (height, width, 3) with Pillow's Lanczos filter, widened when it reduces.

    `crop` takes the largest centred box of the target's shape, `squash` the whole picture. Lanczos is what
    the image processor of diffusers uses for the conditioning picture.
    """
    if image.shape[:2] == (height, width):
        return image
    rows, columns = image.shape[:2]
    box = (0.0, 0.0, float(columns), float(rows))
    if resize is Resize.crop:
        scale = min(columns / width, rows / height)
        left, top = (columns - width * scale) / 2, (rows - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resized, dtype=np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The open file and its first video stream; any fault of the decoder becomes a UserError."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: holds no video stream; give a video file or remove it")
            yield container, container.streams.video[0]
    except av.error.FFmpegError as error:
        reason = error.strerror
        raise UserError(f"{path}: cannot be read as video ({reason}); export or fetch it again") from error


def _first(frames: Iterator[VideoFrame], path: Path) -> VideoFrame:
    for frame in frames:
        return frame
    raise UserError(f"{path}: holds no frame that decodes; export it again or remove it")


def _shown(path: Path, start: float) -> Iterator[tuple[VideoFrame, float]]:
    """Pairs (frame, the time in seconds at which it leaves the screen), beginning at or before `start`."""
    # A seek without an index may land too late: for frame 0 of cityCC0.mpg on frame 12 (measured). Then, and
    # where seeking fails, everything before `start` is decoded.
    for seek in (True, False):
        with _opened(path) as (container, stream):
            base = stream.time_base or Fraction(1, 1)
            frames = container.decode(stream)  # one generator: a second would lose frames the first holds
            shown = _first(frames, path)
            origin = _pts(shown, path)
            if seek:
                frames = _sought(container, stream, origin + int(start / base))
                landed = next(frames, None)
                if landed is None or (_pts(landed, path) - origin) * base > start:
                    continue
                shown = landed
            for frame in frames:
                until = float((_pts(frame, path) - origin) * base)
                if _pts(frame, path) < _pts(shown, path):  # H.264 in AVI: the container stores decoding order
                    raise UserError(f"{path}: time stamps run backwards at second {until}; encode it as mp4")
                yield shown, until
                shown = frame
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            end = _pts(shown, path) + (shown.duration or round(1 / (base * rate)))
            yield shown, float((end - origin) * base)
            return


def _sought(container: InputContainer, stream: VideoStream, ticks: int) -> Iterator[VideoFrame]:
    """Frames from the key frame before `ticks` on; none where the container cannot seek."""
    try:
        container.seek(ticks, stream=stream)
    except av.error.FFmpegError:
        return
    yield from container.decode(stream)


def _pts(frame: VideoFrame, path: Path) -> int:
    if frame.pts is None:
        raise UserError(f"{path}: a frame has no time stamp; remux the file into mp4")
    return frame.pts


def _rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    """uint8 (H, W, 3); the colour matrix is the one the file names, BT.601 where it names none."""
    return np.asarray(frame.to_ndarray(format="rgb24", interpolation=_EXACT), dtype=np.uint8)
