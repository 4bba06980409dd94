"""Real files, encoded here: frame i is a flat gray of level 8 + 6 i, so pixels identify the frame that was read."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from cinelora.core.cli import UserError
from cinelora.core.config import Resize
from cinelora.data import video

NEARLY_LOSSLESS = {
    "crf": "1",
    "g": "12",
    "x264-params": "b-adapt=0:weightp=0:scenecut=0",
}  # with B-frames, several key frames


def encode(path: Path, pts: list[int], time_base: Fraction, codec: str = "libx264", rate: int = 25) -> Path:
    """Frame i, gray 8 + 6 i, shown at pts[i] * time_base seconds."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=NEARLY_LOSSLESS)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        for index, ticks in enumerate(pts):
            gray = np.full((32, 32, 3), 8 + 6 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, format="rgb24")
            frame.pts, frame.time_base = ticks, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def even(path: Path, count: int, rate: int = 25, codec: str = "libx264") -> Path:
    return encode(path, list(range(count)), Fraction(1, rate), codec, rate)


def indices(frames: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 8) / 6) for frame in frames]


def window(path: Path, start: float, fps: float, frames: int) -> list[int]:
    return indices(video.decode_window(path, start, fps, frames, 32, 32, Resize.crop))


def test_probe_counts_and_times(tmp_path: Path) -> None:
    info = video.probe(even(tmp_path / "a.mp4", 40))
    assert info == video.VideoInfo(width=32, height=32, frames=40, seconds=1.6, fps=25.0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_videos_lose_no_frame(tmp_path: Path, count: int) -> None:
    path = even(tmp_path / "a.mp4", count)
    assert video.probe(path).frames == count
    assert indices(video.read_all(path)) == list(range(count))
    assert window(path, 0.0, 25.0, count) == list(range(count))


def test_25_to_16_fps_on_paper(tmp_path: Path) -> None:
    path = even(tmp_path / "a.mp4", 40)
    expected = [0, 1, 3, 4, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 21, 23, 25]  # floor(k * 25 / 16)
    assert window(path, 0.0, 16.0, 17) == expected
    assert window(path, 0.5, 16.0, 5) == [12, 14, 15, 17, 18]  # floor(12.5 + k * 25 / 16)


def test_a_slow_source_shows_a_frame_more_than_once(tmp_path: Path) -> None:
    assert window(even(tmp_path / "a.mp4", 8, rate=8), 0.0, 16.0, 6) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_uneven_frame_times_keep_their_speed(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, [0, 100, 150, 400, 450, 800, 900], Fraction(1, 1000))
    assert window(path, 0.0, 10.0, 9) == [0, 1, 2, 2, 3, 4, 4, 4, 5]
    assert window(path, 0.3, 20.0, 5) == [2, 2, 3, 4, 4]


def test_time_counts_from_the_first_frame(tmp_path: Path) -> None:
    path = encode(tmp_path / "late.mkv", [3000 + 40 * i for i in range(20)], Fraction(1, 1000))
    assert window(path, 0.2, 25.0, 4) == [5, 6, 7, 8]
    assert video.probe(path).seconds == pytest.approx(0.8)


def test_rounded_time_stamps_drop_and_double_nothing(tmp_path: Path) -> None:
    path = even(tmp_path / "a.mkv", 40, rate=30)  # Matroska: 33, 67, 100 ms
    assert window(path, 0.0, 30.0, 40) == list(range(40))


@pytest.mark.parametrize("late_by", [0, 10**9, 20 * 512])  # ticks of 1/12800 s: right, past the end, 20 frames
def test_a_seek_that_lands_late_or_nowhere_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late_by: int
) -> None:
    sought = video._sought
    monkeypatch.setattr(video, "_sought", lambda container, stream, at: sought(container, stream, at + late_by))
    assert window(even(tmp_path / "a.mp4", 40), 0.4, 25.0, 5) == [10, 11, 12, 13, 14]


def test_a_container_that_cannot_seek_is_read_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def seek(self, *_: object, **__: object) -> None:
            raise av.error.PermissionError(1, "Operation not permitted")

    sought = video._sought
    monkeypatch.setattr(video, "_sought", lambda _, stream, at: sought(Stuck(), stream, at))  # type: ignore[arg-type]
    assert window(even(tmp_path / "a.mp4", 40), 0.4, 25.0, 5) == [10, 11, 12, 13, 14]


def test_a_program_stream_has_no_index(tmp_path: Path) -> None:
    path = even(tmp_path / "a.mpg", 20, codec="mpeg2video")
    assert window(path, 0.0, 25.0, 20) == list(range(20))
    assert window(path, 0.52, 25.0, 3) == [13, 14, 15]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_seeking_finds_what_reading_through_finds(tmp_path: Path, name: str, codec: str) -> None:
    path = even(tmp_path / name, 40, codec=codec)
    frames = video.read_all(path)
    for start in range(0, 36, 3):
        found = video.decode_window(path, start / 25, 25.0, 5, 32, 32, Resize.crop)
        assert np.array_equal(found, frames[start : start + 5]), start


def test_the_last_frame_can_be_had_and_one_more_cannot(tmp_path: Path) -> None:
    path = even(tmp_path / "a.mp4", 10)
    assert window(path, 0.2, 25.0, 5) == [5, 6, 7, 8, 9]
    with pytest.raises(UserError, match=r"a.mp4: 5 of 6 frames at 25.0 fps from second 0.2, then the video ends"):
        window(path, 0.2, 25.0, 6)
    with pytest.raises(UserError, match=r"0 of 1 frames"):
        window(path, 9.0, 25.0, 1)


def test_crop_keeps_the_centre_and_squash_keeps_everything() -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, 16:48] = np.arange(32, dtype=np.uint8)[None, :, None]
    assert np.array_equal(video.resize_rgb(image, 32, 32, Resize.crop), image[:, 16:48])
    tall = image.transpose(1, 0, 2)
    assert np.array_equal(video.resize_rgb(tall, 32, 32, Resize.crop), tall[16:48])
    halves = np.zeros((32, 64, 3), np.uint8)
    halves[:, 32:] = 200
    squashed = video.resize_rgb(halves, 32, 32, Resize.squash)
    assert squashed[:, :12].max() == 0 and squashed[:, 20:].min() == 200


def test_reducing_antialiases() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    reduced = video.resize_rgb(stripes, 16, 16, Resize.squash)[:, 2:-2]
    assert abs(int(reduced.min()) - 100) <= 2 and abs(int(reduced.max()) - 100) <= 2


def test_decode_window_resizes_and_returns_uint8(tmp_path: Path) -> None:
    frames = video.decode_window(even(tmp_path / "a.mp4", 5), 0.0, 25.0, 2, 16, 48, Resize.crop)
    assert frames.shape == (2, 16, 48, 3) and frames.dtype == np.uint8


def test_written_clips_read_back_with_colour_and_time(tmp_path: Path) -> None:
    frames = np.empty((9, 48, 32, 3), np.uint8)
    frames[:] = (200, 50, 30)
    frames[:, :, 16:] = (20, 90, 180)
    path = tmp_path / "new" / "a.mp4"
    video.write_mp4(path, frames, 16.0)
    back = video.read_all(path)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames)[:, :, [4, 28]].max() <= 4
    assert video.probe(path) == video.VideoInfo(32, 48, 9, 9 / 16, 16.0)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    t, y, x = np.mgrid[:40, :64, :64]  # smooth motion: noise would not show the encoder's fault
    waves = 127 + 60 * np.sin((x + 2 * t) / 5) + 50 * np.cos((y - t) / 7)
    frames = np.stack([waves, 127 + 90 * np.sin(x * y / 200 + t / 3), (4 * x + 2 * y + 5 * t) % 256], axis=-1)
    written = set()
    for index in range(6):
        clutter = np.full(100_003 * (index + 1), index, np.uint8)  # moves the encoder's memory about
        video.write_mp4(tmp_path / f"{index}.mp4", frames.astype(np.uint8), 24000 / 1001)
        written.add((tmp_path / f"{index}.mp4").read_bytes())
        del clutter
    assert len(written) == 1


def test_an_encoder_fault_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, *_: object, **__: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(np, "ascontiguousarray", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        video.write_mp4(tmp_path / "a.mp4", np.zeros((3, 16, 16, 3), np.uint8), 16.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (2, 16, 16), (2, 15, 16, 3), (2, 16, 16, 4)])
def test_write_refuses_what_is_no_clip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="frames="):
        video.write_mp4(tmp_path / "a.mp4", np.zeros(shape, np.uint8), 16.0)


@pytest.mark.parametrize("content", [b"", b"these are words, not a video " * 99])
def test_a_file_that_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    for read in (video.probe, video.read_all, lambda p: window(p, 0.0, 16.0, 1)):
        with pytest.raises(UserError, match=r"bad.mp4: cannot be read as video \(.+\); export or fetch it again"):
            read(path)


def test_a_cut_off_file_is_named_or_counted_as_it_is(tmp_path: Path) -> None:
    whole = even(tmp_path / "a.mp4", 40).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.mp4"):
        video.probe(tmp_path / "cut.mp4")
    whole = even(tmp_path / "a.mkv", 40).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 4 // 5])
    assert 0 < video.probe(tmp_path / "cut.mkv").frames < 40  # never what the header promises


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.mp4: cannot be read as video \(No such file"):
        video.probe(tmp_path / "none.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="a.wav: holds no video stream"):
        video.probe(tmp_path / "a.wav")


def test_a_video_stream_without_frames_is_named(tmp_path: Path) -> None:
    path = even(tmp_path / "empty.mkv", 0)
    for read in (video.probe, video.read_all):
        with pytest.raises(UserError, match="empty.mkv: "):
            read(path)


def test_time_stamps_that_run_backwards_are_refused(tmp_path: Path) -> None:
    path = even(tmp_path / "a.avi", 30)  # H.264 with B-frames in AVI: only the decoding order is stored
    with pytest.raises(UserError, match=r"a.avi: time stamps run backwards at second .*; encode it as mp4"):
        video.probe(path)


CORNERS = np.repeat(np.repeat(np.array([[20, 80, 140], [50, 110, 200]], np.uint8), 16, 0), 16, 1)  # 32 x 48, six greys
ONE = 1 << 16


def put_corners(path: Path, matrix: tuple[int, int, int, int] = (1, 0, 0, 1), **settings: object) -> Path:
    """Three frames of CORNERS, shown by `matrix`; `settings` of the encoder."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width = CORNERS.shape
        stream.pix_fmt = "yuv420p"
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        a, b, c, d = (each * ONE for each in matrix)
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.repeat(CORNERS[..., None], 3, 2), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), CORNERS),
        ((0, 1, -1, 0), np.rot90(CORNERS, -1)),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), np.rot90(CORNERS, 2)),
        ((0, -1, 1, 0), np.rot90(CORNERS, 1)),
        ((-1, 0, 0, 1), CORNERS[:, ::-1]),
        ((1, 0, 0, -1), CORNERS[::-1]),
        ((0, 1, 1, 0), CORNERS.T),
    ],
)
def test_clips_come_out_as_they_are_shown(tmp_path: Path, matrix: Any, shown: np.ndarray) -> None:
    path = put_corners(tmp_path / "a.mp4", matrix)
    info = video.probe(path)
    assert (info.height, info.width) == shown.shape and bool(info.corrected) == (shown is not CORNERS)
    window = video.decode_window(path, 0.0, 25.0, 1, *shown.shape, Resize.crop)
    for frames in (video.read_all(path), window):
        assert np.abs(frames[0].mean(2) - shown)[8::16, 8::16].max() <= 2


def test_a_slanted_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.mp4: shown turned by -?45 degrees; export it upright"):
        video.probe(put_corners(tmp_path / "a.mp4", (1, 1, -1, 1)))


def test_pixels_become_square(tmp_path: Path) -> None:
    for aspect, shape in ((Fraction(2), (32, 96)), (Fraction(1, 2), (64, 48))):
        path = put_corners(tmp_path / "a.mp4", sample_aspect_ratio=aspect)
        info = video.probe(path)
        assert (info.height, info.width) == shape == video.read_all(path).shape[1:3] and info.corrected


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(tmp_path: Path, transfer: int, name: str) -> None:
    path = put_corners(tmp_path / "a.mp4", color_trc=transfer)
    for read in (video.probe, video.read_all, lambda p: window(p, 0.0, 16.0, 1)):
        with pytest.raises(UserError, match=rf"a.mp4: HDR video \({name}\); convert it to SDR"):
            read(path)


def put_behind_cover(path: Path, pictures: np.ndarray) -> Path:
    """The pictures, uint8 (T, 32, 32, 3) at 25 fps, as the second stream, behind a still picture."""
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=25)
        cover.width = cover.height = 16
        cover.pix_fmt = "yuvj420p"
        film: Any = container.add_stream("libx264", rate=25, options=NEARLY_LOSSLESS)
        film.width = film.height = 32
        film.pix_fmt = "yuv420p"
        for stream, shown in ((cover, np.zeros((1, 16, 16, 3), np.uint8)), (film, pictures)):
            for picture in shown:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return path


def test_a_cover_picture_is_not_the_film(tmp_path: Path) -> None:
    levels = 8 + 6 * np.arange(12, dtype=np.uint8)
    path = put_behind_cover(tmp_path / "a.mkv", np.tile(levels[:, None, None, None], (1, 32, 32, 3)))
    assert indices(video.read_all(path)) == list(range(12)) and window(path, 0.2, 25, 5) == [5, 6, 7, 8, 9]
    assert video.probe(path).frames == 12 and video.probe(path).corrected


def damage(path: Path, number: int) -> Path:
    """Puts zeros into the second half of a picture's data: decoders fill in without an error."""
    with av.open(str(path)) as container:
        packet = [each for each in container.demux(video=0) if each.size][number]
        start, size = packet.pos or 0, packet.size
    data = bytearray(path.read_bytes())
    data[start + size // 2 : start + size] = bytes(size - size // 2)
    path.write_bytes(data)
    return path


def test_damage_that_the_decoder_hides_is_refused_with_its_second(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    video.write_mp4(tmp_path / "a.mp4", noise, 25.0)
    damage(tmp_path / "a.mp4", 0)
    for read in (video.probe, video.read_all, lambda p: window(p, 0.0, 25, 9)):
        with pytest.raises(UserError, match=r"a.mp4: damaged at second \S+; export or fetch it again"):
            read(tmp_path / "a.mp4")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    for read in (video.probe, video.read_all, video.read_image, lambda p: window(p, 0.0, 16.0, 1)):
        with pytest.raises(UserError, match=r"a.mp4: is not a regular file"):
            read(tmp_path / "a.mp4")


def test_images_come_out_upright_in_8_bits(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.fromarray(CORNERS).save(tmp_path / "turned.png", exif=exif)
    assert (video.read_image(tmp_path / "turned.png")[..., 1] == np.rot90(CORNERS, -1)).all()
    Image.fromarray(CORNERS.astype(np.uint16) * 257 + 100).save(tmp_path / "deep.png")
    assert (video.read_image(tmp_path / "deep.png") == CORNERS[..., None]).all()


def test_transparent_and_ink_colours_are_refused(tmp_path: Path) -> None:
    grey = Image.fromarray(CORNERS)
    clear = grey.convert("RGBA")
    clear.save(tmp_path / "opaque.png")
    assert (video.read_image(tmp_path / "opaque.png") == CORNERS[..., None]).all()
    clear.putpixel((0, 0), (9, 9, 9, 0))
    clear.save(tmp_path / "clear.png")
    grey.convert("CMYK").save(tmp_path / "ink.jpg")
    clear.save(tmp_path / "clear.gif", save_all=True, append_images=[clear])
    with pytest.raises(UserError, match=r"clear.png: has transparent pixels"):
        video.read_image(tmp_path / "clear.png")
    with pytest.raises(UserError, match=r"ink.jpg: its colours are CMYK, not RGB; export it as 8-bit RGB"):
        video.read_image(tmp_path / "ink.jpg")
    with pytest.raises(UserError, match=r"clear.gif: transparent pixels at second 0"):
        video.probe(tmp_path / "clear.gif")
