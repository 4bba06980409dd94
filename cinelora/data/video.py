"""Video and image files to pixels and back, by time stamps (PyAV, NumPy, Pillow; no torch).

In: a video or image file. Out: uint8 RGB arrays in 0..255, layout (T, H, W, 3): T frames, H rows, W columns.
A time is in seconds after the file's first frame. Pictures come out as a person sees them: upright, of square pixels,
in standard dynamic range; cover pictures are passed over. Raises UserError naming the file that cannot be read so:
no regular file, damaged, HDR, transparent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cinelora.core.cli import UserError
from cinelora.core.config import Resize
from cinelora.core.files import whole_file

av.logging.set_level(av.logging.PANIC)  # errors are raised; FFmpeg's own log would repeat them

# Matroska rounds time stamps to whole milliseconds, so a frame may carry one half a millisecond late.
TIME_TOLERANCE_SECONDS = 0.6e-3
# The exact path of the colour conversion, so that pixels do not depend on the CPU's vector instructions.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
CRF = 10  # visually lossless, so the file shows the model and not the codec
# Macroblock-tree rate control is off: with it x264 core 165 wrote other bytes from run to run (40 runs of one thread,
# measured here).
_X264 = {"threads": "1", "x264-params": "mbtree=0"}
_OF_THREAD = threading.local()
_BT601 = 6  # H.273 matrix "SMPTE 170M": said in the file, or players guess BT.709 for large pictures
_HDR = {16: "PQ", 18: "HLG"}  # H.273 transfer functions whose levels mean other light than those of sRGB and BT.709
_STILL = ("mjpeg", "png", "bmp", "gif", "tiff", "webp")  # codecs of a cover picture beside a film


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels as shown, number of frames, seconds on screen, mean frames per second.

    `corrected`: how the pictures differ from those that the first stream stores; empty: not at all.
    """

    width: int
    height: int
    frames: int
    seconds: float
    fps: float
    corrected: str = ""


@dataclass(frozen=True)
class _View:
    """How stored pictures are shown: stretched to `width` x `height` pixels, transposed, then mirrored."""

    width: int
    height: int
    transposed: bool
    down: int  # 1, or -1: rows in reverse order
    right: int
    stream: int

    def describe(self, frame: VideoFrame) -> str:
        """Empty when pictures of the form of `frame` in the first video stream are shown as stored."""
        stored = (frame.width, frame.height, False, 1, 1, 0)
        shown = (self.width, self.height, self.transposed, self.down, self.right, self.stream)
        return "" if shown == stored else " ".join(map(str, shown))


def probe(path: Path) -> VideoInfo:
    """Size and timing, by decoding every frame: headers of truncated or uneven files are wrong.

    Raises UserError for a file that is no video, has no frames or no duration.
    """
    frames = 0
    for frame, view, seconds in _shown(path, 0.0):  # noqa: B007
        frames += 1
    if seconds <= 0:
        raise UserError(f"{path}: the video lasts {seconds} seconds; export it again or remove it")
    width, height = (view.height, view.width) if view.transposed else (view.width, view.height)
    return VideoInfo(width, height, frames, seconds, frames / seconds, view.describe(frame))


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
    for frame, view, until in _shown(path, times[0]):
        if times[filled] >= until:
            continue
        image = resize_rgb(_rgb(frame, view), height, width, resize)
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
        frames = _sound(container.decode(stream), path)
        first = _first(frames, path)
        view = _view(first, stream, path)
        return np.stack([_rgb(frame, view) for frame in islice(chain([first], frames), most)])


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as shown, upright: uint8 (H, W, 3), 0..255; levels of 16 bits are rounded to 8."""
    require_regular(path)
    try:
        with Image.open(path) as stored:
            image = ImageOps.exif_transpose(stored)
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image).astype(np.uint32) + 128) // 257
                return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
            if image.mode in ("CMYK", "LAB", "I", "F"):
                raise UserError(f"{path}: its colours are {image.mode}, not RGB; export it as 8-bit RGB")
            if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                raise UserError(f"{path}: has transparent pixels; put it on a background and export it without alpha")
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise UserError(f"{path}: cannot be read as an image ({type(error).__name__}); replace it") from error


def require_regular(path: Path) -> None:
    """UserError for a pipe, socket, device or folder: opening one may wait for ever."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is not a regular file; copy its content into one or remove it")


def film_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is no cover picture."""
    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not films:
        raise UserError(f"{path}: holds no video stream; give a video file or remove it")
    return next((s for s in films if getattr(s.codec_context, "name", "") not in _STILL), films[0])


def write_mp4(path: Path, frames: NDArray[np.uint8], fps: float, crf: int = CRF) -> None:
    """Write uint8 (T, H, W, 3) as H.264 yuv420p at constant rate factor `crf`, whole or not at all; H, W even, T >= 1.

    The same frames give the same bytes: one encoder thread, no dates in the file.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or 0 in frames.shape or frames.shape[3] != 3:
        raise ValueError(f"frames={frames.dtype}{frames.shape}: must be uint8 (T, H, W, 3) with T > 0")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"frames={frames.shape}: height and width must be even for yuv420p")
    undated = {"fflags": "+bitexact"}
    with whole_file(path) as temporary, av.open(str(temporary), "w", options=undated) as container:
        rate = Fraction(fps).limit_denominator(1001)  # 24000/1001 and the like stay exact
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), **_X264})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = _BT601
        for image in frames:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(_converted(frame, "yuv420p")))
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
    """The open file and its film; any fault of the decoder becomes a UserError."""
    require_regular(path)
    try:
        with av.open(str(path)) as container:
            yield container, film_stream(container, path)
    except av.error.FFmpegError as error:
        reason = error.strerror
        raise UserError(f"{path}: cannot be read as video ({reason}); export or fetch it again") from error


def _first(frames: Iterator[VideoFrame], path: Path) -> VideoFrame:
    for frame in frames:
        return frame
    raise UserError(f"{path}: holds no frame that decodes; export it again or remove it")


def _sound(frames: Iterator[VideoFrame], path: Path) -> Iterator[VideoFrame]:
    """The frames as they come. UserError: one is damaged, which the decoder hides, HDR or transparent."""
    for frame in frames:
        second = f"at second {frame.time or 0.0:.3g}"
        if frame.is_corrupt:
            raise UserError(f"{path}: damaged {second}; export or fetch it again")
        if frame.color_trc in _HDR:
            hdr = _HDR[frame.color_trc]
            raise UserError(f"{path}: HDR video ({hdr}); convert it to SDR (BT.709) with tone mapping or remove it")
        if _has_alpha(frame.format.name) and _converted(frame, "rgba").to_ndarray()[..., 3].min() < 255:
            raise UserError(f"{path}: transparent pixels {second}; put it on a background, export it without alpha")
        yield frame


@cache
def _has_alpha(pixel_format: str) -> bool:
    return pixel_format == "pal8" or any(each.is_alpha for each in av.VideoFormat(pixel_format).components)


def _view(frame: VideoFrame, stream: VideoStream, path: Path) -> _View:
    """How the pictures of `stream` are shown, of which `frame` is one."""
    if stream.metadata.get("alpha_mode") == "1":  # WebM: a second stream of its own, which the decoder passes over
        raise UserError(f"{path}: has an alpha channel; put it on a background and export it without alpha")
    square = Fraction(1)
    aspect = stream.sample_aspect_ratio or square  # width of a pixel over its height; a short side is stretched
    width, height = round(frame.width * max(aspect, square)), round(frame.height / min(aspect, square))
    right, shear, lean, down = 1, 0, 0, 1
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:  # x' = right x + lean y, y' = shear x + down y
        right, shear, _, lean, down = (int(each) for each in np.sign(np.frombuffer(matrix, np.int32, 5)))
    if (shear, lean) == (0, 0) != (right, down):
        transposed = False
    elif (right, down) == (0, 0) != (shear, lean):
        transposed, right, down = True, lean, shear
    else:
        raise UserError(f"{path}: shown turned by {frame.rotation} degrees; export it upright")
    return _View(width, height, transposed, down, right, stream.container.streams.video.index(stream))


def _shown(path: Path, start: float) -> Iterator[tuple[VideoFrame, _View, float]]:
    """(frame, how it is shown, the second at which it leaves the screen), beginning at or before `start`."""
    # A seek without an index may land too late: for frame 0 of cityCC0.mpg on frame 12 (measured). Then, and
    # where seeking fails, everything before `start` is decoded.
    for seek in (True, False):
        with _opened(path) as (container, stream):
            base = stream.time_base or Fraction(1, 1)
            frames = _sound(container.decode(stream), path)  # one generator: a second would lose frames it holds
            shown = _first(frames, path)
            view = _view(shown, stream, path)
            origin = _pts(shown, path)
            if seek:
                frames = _sound(_sought(container, stream, origin + int(start / base)), path)
                landed = next(frames, None)
                if landed is None or (_pts(landed, path) - origin) * base > start:
                    continue
                shown = landed
            for frame in frames:
                until = float((_pts(frame, path) - origin) * base)
                if _pts(frame, path) < _pts(shown, path):  # H.264 in AVI: the container stores decoding order
                    raise UserError(f"{path}: time stamps run backwards at second {until}; encode it as mp4")
                yield shown, view, until
                shown = frame
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            end = _pts(shown, path) + (shown.duration or round(1 / (base * rate)))
            yield shown, view, float((end - origin) * base)
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


def _converted(frame: VideoFrame, form: str) -> VideoFrame:
    """The frame in another pixel format. A thread keeps its converter: making one takes longer than a small frame."""
    if not hasattr(_OF_THREAD, "converter"):
        _OF_THREAD.converter = VideoReformatter()
    converter: VideoReformatter = _OF_THREAD.converter
    return converter.reformat(frame, format=form, interpolation=_EXACT)


def _rgb(frame: VideoFrame, view: _View) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) as shown; the colour matrix is the one the file names, BT.601 where it names none."""
    stored = np.asarray(_converted(frame, "rgb24").to_ndarray(), dtype=np.uint8)
    image = resize_rgb(stored, view.height, view.width, Resize.squash)
    if view.transposed:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: view.down, :: view.right])
