"""Dataset folders in, clips or one clear line out. The "videos" here are any bytes: nothing is decoded."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from cinelora.core.cli import UserError
from cinelora.core.files import file_sha256
from cinelora.data.dataset import Clip, dataset_fingerprint, read_clips, unlisted


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def put_csv(root: Path, text: str, *videos: str) -> Path:
    put(root, *videos)
    (root / "metadata.csv").write_text(text)
    return root


@pytest.mark.parametrize("video", ["video", "file_name", "file_path", "video_path"])
@pytest.mark.parametrize("caption", ["prompt", "caption", "text"])
def test_csv_names_its_columns_in_every_known_way(tmp_path: Path, video: str, caption: str) -> None:
    put_csv(tmp_path, f'{video},{caption}\nsub/b.mp4,second\na.mp4," first, with comma "\n', "a.mp4", "sub/b.mp4")
    assert read_clips(tmp_path) == (
        Clip("a.mp4", "first, with comma", None),
        Clip("sub/b.mp4", "second", None),
    )


def test_csv_shot_column_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffvideo,prompt,shot\na.mp4,one,street\nb.mp4,two,\n"
    put_csv(tmp_path, text, "a.mp4", "b.mp4")
    assert [clip.shot for clip in read_clips(tmp_path)] == ["street", None]


def test_jsonl_layout(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mov")
    rows = [{"video": "b.mov", "caption": "two", "shot": "s"}, {"file_name": "./a.mp4", "text": "one"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert read_clips(tmp_path) == (Clip("a.mp4", "one", None), Clip("b.mov", "two", "s"))


def test_pairs_layout_in_subfolders_with_every_suffix(tmp_path: Path) -> None:
    suffixes = ("mp4", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m4v", "MP4", "ts")
    names = [f"deep/er/{i}.{suffix}" for i, suffix in enumerate(suffixes)]
    put(tmp_path, *names, *(f"deep/er/{i}.txt" for i in range(len(suffixes))), "README.txt", "deep/.half.mp4")
    assert [clip.video for clip in read_clips(tmp_path)] == names
    assert read_clips(tmp_path)[0].caption == "deep/er/0.txt"


def test_a_link_that_stays_inside_is_fine(tmp_path: Path) -> None:
    put_csv(tmp_path, "video,prompt\nb.mp4,one\n", "store/a.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "store/a.mp4")
    assert read_clips(tmp_path)[0].video == "b.mp4"


def test_a_missing_folder_and_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.path=.*/none: no such folder"):
        read_clips(tmp_path / "none")
    with pytest.raises(UserError, match="the folder is empty"):
        read_clips(tmp_path)


def test_no_layout_names_what_was_looked_for(tmp_path: Path) -> None:
    put(tmp_path, "notes.txt")
    with pytest.raises(UserError, match=r"no metadata.csv, no metadata.jsonl, no videos"):
        read_clips(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,prompt\na.mp4,one\n", r"metadata.csv: no video among the columns \['clip', 'prompt'\]"),
        ("video,words\na.mp4,one\n", r"metadata.csv: no caption among the columns \['video', 'words'\]"),
        ("", "metadata.csv: no video among the columns"),
        ("video;prompt\na.mp4;one\n", "no video among .*; separate them by commas and name one video or"),
        ("video,prompt\n", "no clips listed"),
        ("video,prompt\na.mp4,one\nb.mp4,   \n", r"metadata.csv line 3: caption='   ' is blank"),
        ("video,prompt\na.mp4\n", r"metadata.csv line 2: caption=None is blank"),
        ("video,prompt\n,one\n", r"metadata.csv line 2: video='' is not a path"),
        ("video,prompt\na.mp4,one, two\n", r"metadata.csv line 2: has more cells than the header"),
        ("video,prompt\nc.mp4,one\n", r"metadata.csv line 2: video=c.mp4 is no file under"),
        ("video,prompt\n../x.mp4,one\n", r"metadata.csv line 2: video=../x.mp4 leaves the dataset folder"),
        (
            "video,prompt\na.mp4,one\n./a.mp4,two\n",
            r"metadata.csv line 3: video=a.mp4 is the same file as a.mp4",
        ),
    ],
)
def test_a_bad_csv_names_the_line_the_value_and_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "x.mp4")
    root = put_csv(tmp_path / "data", text, "a.mp4", "b.mp4")
    with pytest.raises(UserError, match=message) as caught:
        read_clips(root)
    assert "\n" not in str(caught.value)


def test_an_absolute_path_is_fine_inside_the_folder_alone(tmp_path: Path) -> None:
    put(tmp_path, "x.mp4")
    root = put_csv(tmp_path / "data", f"video,prompt\n{tmp_path / 'data' / 'a.mp4'},one\n", "a.mp4")
    assert read_clips(root) == (Clip("a.mp4", "one", None),)
    put_csv(root, f"video,prompt\n{tmp_path / 'x.mp4'},one\n")
    with pytest.raises(UserError, match=r"video=/.*/x.mp4 leaves the dataset folder .*; copy or link the file"):
        read_clips(root)


def test_links_are_followed_and_lead_round_in_no_circle(tmp_path: Path) -> None:
    put(tmp_path, "store/b.mp4", "store/b.txt", "data/a.mp4", "data/a.txt", "blobs/1f")
    root = tmp_path / "data"
    (root / "more").symlink_to(tmp_path / "store")
    (tmp_path / "store/back").symlink_to(root)
    (root / "again").symlink_to(root)
    assert [clip.video for clip in read_clips(root)] == ["a.mp4", "more/b.mp4"]
    (root / "c.mp4").symlink_to(tmp_path / "blobs/1f")  # as a cache of downloads holds them
    put_csv(root, "video,prompt\nc.mp4,one\n")
    assert [clip.video for clip in read_clips(root)] == ["c.mp4"]
    (root / "self.mp4").symlink_to(root / "self.mp4")
    put_csv(root, "video,prompt\nself.mp4,one\n")
    with pytest.raises(UserError, match="line 2: video=self.mp4 is no file"):
        read_clips(root)


def test_every_video_that_is_no_clip_is_named(tmp_path: Path) -> None:
    put_csv(tmp_path, "video,prompt\na.mp4,one\n", "a.mp4", "b.mp4", "sub/c.ts", "d.gif", "notes.txt", ".half.mp4")
    (tmp_path / "metadata.jsonl").write_text("{}")
    assert unlisted(tmp_path, read_clips(tmp_path)) == {
        "b.mp4": "not in metadata.csv",
        "d.gif": "an animated image; convert it to .mp4",
        "metadata.jsonl": "metadata.csv is read instead",
        "sub/c.ts": "not in metadata.csv",
    }


def test_a_quote_that_swallows_rows_is_named_and_a_caption_of_two_lines_is_not(tmp_path: Path) -> None:
    put_csv(tmp_path, 'video,prompt\na.mp4,"one\nb.mp4,two\nc.mp4,three"\n', "a.mp4", "b.mp4", "c.mp4")
    with pytest.raises(UserError, match=r"metadata.csv line 2: .* over the row 'b.mp4,two'; close its quote"):
        read_clips(tmp_path)
    put_csv(tmp_path, 'video,prompt\na.mp4,one\nb.mp4,"two\nc.mp4,three\n')
    with pytest.raises(UserError, match=r"metadata.csv line 3: unexpected end of data; close the quote"):
        read_clips(tmp_path)
    put_csv(tmp_path, 'video,prompt\na.mp4,"a street,\nat night, wet"\n')
    assert read_clips(tmp_path)[0].caption == "a street,\nat night, wet"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_feeds_end_a_row(tmp_path: Path, separator: str) -> None:
    put_csv(tmp_path, f"video,prompt\r\na.mp4,one{separator}two\r\nb.mp4,three\r\n", "a.mp4", "b.mp4")
    assert [clip.caption for clip in read_clips(tmp_path)] == [f"one{separator}two", "three"]


def test_half_a_character_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    (tmp_path / "metadata.jsonl").write_text('{"video": "a.mp4", "prompt": "a square \\ud83d"}\n')
    with pytest.raises(
        UserError, match=r"metadata.jsonl line 1: caption: holds \\ud83d, which is not UTF-8 text"
    ) as caught:
        read_clips(tmp_path)
    str(caught.value).encode("ascii")


def test_a_file_name_in_latin_1_is_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    with pytest.raises(UserError, match=r"caf\\udce9.mp4: holds .*; rename the file") as caught:
        read_clips(tmp_path)
    str(caught.value).encode("ascii")


@pytest.mark.parametrize(("stored", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_match_in_both_forms(tmp_path: Path, stored: str, written: str) -> None:
    on_disk, named = (unicodedata.normalize(form, "caf\u00e9.mp4") for form in (stored, written))
    put_csv(tmp_path, f"video,prompt\n{named},one\n", on_disk)
    assert [clip.video for clip in read_clips(tmp_path)] == [on_disk]
    (tmp_path / "metadata.csv").unlink()
    put(tmp_path, named.replace("mp4", "txt"))
    assert [clip.video for clip in read_clips(tmp_path)] == [on_disk]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{video", r"metadata.jsonl line 1: not JSON"),
        ("[1]", r"metadata.jsonl line 1: not a JSON object"),
        ('{"prompt": "one"}', r"metadata.jsonl line 1: no video among the columns"),
        ('{"video": "a.mp4"}', r"metadata.jsonl line 1: no caption among the columns"),
        ('{"video": "a.mp4", "prompt": 3}', r"metadata.jsonl line 1: caption=3 is blank or not text"),
        ('{"video": 7, "prompt": "one"}', r"metadata.jsonl line 1: video=7 is not a path"),
        ('{"video": "a.mp4", "prompt": "one", "shot": 2}', r"metadata.jsonl line 1: shot=2 is not text"),
    ],
)
def test_a_bad_jsonl_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    put(tmp_path, "a.mp4")
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read_clips(tmp_path)


def test_a_pair_without_its_caption_or_with_a_blank_one(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4")
    with pytest.raises(UserError, match=r"a.mp4: has no caption; write it into a.txt"):
        read_clips(tmp_path)
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"a.txt: caption=' \\n' is blank"):
        read_clips(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a.txt: not UTF-8"):
        read_clips(tmp_path)


def test_fingerprint_sees_content_caption_shot_and_path_but_not_order(tmp_path: Path) -> None:
    put_csv(tmp_path, "video,prompt\na.mp4,one\nb.mp4,two\n", "a.mp4", "b.mp4", "c.mp4")
    clips = read_clips(tmp_path)

    def fingerprint(clips: tuple[Clip, ...]) -> str:
        return dataset_fingerprint(clips, {clip.video: file_sha256(tmp_path / clip.video) for clip in clips})

    before = fingerprint(clips)
    assert before == fingerprint(clips[::-1])
    first, second = clips
    others = [
        (Clip("a.mp4", "other", None), second),
        (Clip("a.mp4", "one", "shot"), second),
        (Clip("c.mp4", "one", None), second),
        (first,),
    ]
    assert len({before, *(fingerprint(other) for other in others)}) == 5
    (tmp_path / "a.mp4").write_bytes(b"changed")
    assert fingerprint(clips) != before


def test_a_pipe_among_the_videos_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text("a street")
    with pytest.raises(UserError, match=r"video=a.mp4 is no file"):
        read_clips(tmp_path)
