"""What lies in a folder is used, or refused by name."""

import pytest
from hyvideo_finetune import FinetuneError
from hyvideo_finetune.prepare.folder import look_into
from hyvideo_finetune.prepare.table import caption_table


@pytest.fixture
def folder(tmp_path):
    """One video with its caption; nothing reads it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(b"")
    (tmp_path / "in/a.txt").write_text("a wave")
    return tmp_path / "in"


def looked(folder, **settings):
    found, refused = look_into(folder, **settings)
    return [one.name for one in found], {one.name: one.reason for one in refused}


@pytest.mark.parametrize("name", ["x.m4v", "x.GIF", "x.bmp", "sub/x.mpg", "x.heic", "x.tiff"])
def test_footage_of_an_unknown_type_is_refused_by_name(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    (folder / name).with_suffix(".txt").write_text("its caption is told with it")
    found, refused = looked(folder)
    assert found == ["a.mp4"]
    assert set(refused) == {name}
    assert refused[name].startswith("its type of file is not read; known are mp4, ")


def test_a_text_without_footage_is_refused_by_name(folder):
    (folder / "b.txt").write_text("of nothing")
    assert looked(folder)[1] == {"b.txt": "a text, but there is no video or picture of that name"}


def test_what_is_neither_or_hidden_is_left_alone(folder):
    for name in ("notes.pdf", ".DS_Store", ".hidden.txt", ".cache/x.gif", "list.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    assert looked(folder) == (["a.mp4"], {})


def test_texts_do_not_count_beside_a_table(folder, tmp_path):
    (folder / "b.txt").write_text("of nothing")
    (tmp_path / "t.csv").write_text("file,caption\na.mp4,a wave\n")
    assert looked(folder, captions=tmp_path / "t.csv") == (["a.mp4"], {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,caption\na.mp4,red, and blue\n", "line 2 has more values than columns; put a text with commas in"),
        ("a.mp4,red, and blue\n", "needs the columns file and caption in its first line; it has a.mp4, red"),
        ("", "needs the columns file and caption in its first line; it has nothing"),
        ("file,caption\n", "holds no captions"),
        ("file,caption\na.mp4,one\n\n./a.mp4,two\n", "line 4 is of a.mp4, as line 2 is; leave one out"),
        ("file,caption\n,one\n", "line 2 names no file"),
        ('file,caption\na.mp4,"one\n', "can't be read as a table"),
    ],
)
def test_a_wrong_table_is_refused_where_it_is_wrong(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FinetuneError, match=message):
        caption_table(tmp_path / "t.csv")


def test_a_table_is_read(tmp_path):
    (tmp_path / "t.csv").write_text('\ufeffvideo,text\nsub/a.mp4,"red,\n and blue"\nb.mp4\n', encoding="utf-8")
    told = caption_table(tmp_path / "t.csv")
    assert {name: caption for name, (caption, *_) in told.items()} == {"sub/a.mp4": "red, and blue", "b.mp4": ""}
