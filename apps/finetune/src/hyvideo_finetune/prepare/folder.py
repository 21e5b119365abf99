"""What lies in a user's folder: videos and pictures, and the caption of each."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path

from hy_data.samples import MEDIA

from hyvideo_finetune.errors import FinetuneError
from hyvideo_finetune.prepare.table import Told, caption_table

_FOOTAGE = (".m4v", ".wmv", ".flv", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".ogv", ".heic", ".heif", ".avif", ".jxl")
"""What Python knows no type of on every machine."""

Describe = Callable[[Path], str]
"""Makes a caption of a video's or picture's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A video or a picture with its caption.

    Attributes:
        file: where it lies.
        name: its path in the folder.
        caption: what it shows.
        told_by: where the caption comes from, for the report.
    """

    file: Path
    name: str
    caption: str
    told_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What can't be used, and why.

    Attributes:
        name: its path in the folder.
        reason: what is wrong, and what would be right.
    """

    name: str
    reason: str


def look_into(
    folder: Path, captions: Path | None = None, describe: Describe | None = None
) -> tuple[list[Found], list[Refused]]:
    """Find videos and pictures, in sub-folders too, in the order of their names.

    A caption is the text file of the same name (`clip.mp4`, `clip.txt`), or what a table of captions says.

    Args:
        folder: where to look.
        captions: a table (CSV) with a column `file` (or video, path …), relative to the folder, and one `caption` (or
            text, prompt); text files are not looked at then.
        describe: makes the captions that are missing or empty.

    Raises:
        FinetuneError: there is no such folder, or nothing in it to train on; or the table can't be read.
    """
    if not folder.is_dir():
        raise FinetuneError(f"{folder}: no such folder; give one with videos (or pictures) and a text file for each")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_hidden(file, folder)]
    media = {file.relative_to(folder).as_posix(): file for file in files if file.suffix.lower().lstrip(".") in MEDIA}
    if not media:
        raise FinetuneError(f"{folder}: no videos and no pictures in it; known are {', '.join(MEDIA)}")
    told = _beside(media) if captions is None else caption_table(captions)
    found: list[Found] = []
    read = set(media.values())
    unknown = [file for file in files if file not in read and _is_footage(file)]
    reason = f"its type of file is not read; known are {', '.join(MEDIA)}"
    refused = [Refused(name=file.relative_to(folder).as_posix(), reason=reason) for file in unknown]
    refused += _without_media(folder, files, told, captions, read.union(unknown))
    for name, file in media.items():
        caption, told_by, reason = told.get(name, ("", "", _lacking(file, captions)))
        if not caption and describe is not None:
            (caption, reason), told_by = _described(file, describe), "captioner"
        if caption:
            found.append(Found(file=file, name=name, caption=caption, told_by=told_by))
        else:
            refused.append(Refused(name=name, reason=reason))
    return found, refused


def _is_footage(file: Path) -> bool:
    """Whether a file's name is one of a video or picture, of whatever type."""
    name = file.name.lower()
    return name.endswith(_FOOTAGE) or (guess_type(name)[0] or "").startswith(("video/", "image/"))


def _without_media(
    folder: Path, files: Sequence[Path], told: Told, captions: Path | None, media: Collection[Path]
) -> list[Refused]:
    """Captions that are of nothing in the folder."""
    if captions is not None:
        known = {file.relative_to(folder).as_posix() for file in media}
        reason = f"{captions} has a caption for it, but there is no such video or picture"
        return [Refused(name=name, reason=reason) for name in told if name not in known]
    stems = {file.with_suffix("") for file in media}
    texts = [file for file in files if file.suffix.lower() == ".txt" and file.with_suffix("") not in stems]
    reason = "a text, but there is no video or picture of that name"
    return [Refused(name=file.relative_to(folder).as_posix(), reason=reason) for file in texts]


def _described(file: Path, describe: Describe) -> tuple[str, str]:
    """A caption, or why there is none."""
    try:
        return describe(file).strip(), "the captioner says nothing of it"
    except Exception as error:  # a captioner is a stranger's code: whatever it does costs this file only
        return "", f"the captioner failed with {type(error).__name__}: {error}"


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _beside(media: Mapping[str, Path]) -> Told:
    """The text files beside videos."""
    texts = {name: file.with_suffix(".txt") for name, file in media.items()}
    return {name: _text(text) for name, text in texts.items() if text.is_file()}


def _text(file: Path) -> tuple[str, str, str]:
    try:
        return " ".join(file.read_text(encoding="utf-8-sig").split()), file.name, _empty(file)
    except (OSError, UnicodeDecodeError) as error:
        return "", file.name, f"{file.name} can't be read as text in UTF-8: {error}"


def _empty(file: Path) -> str:
    return f"its caption in {file.name} is empty"


def _lacking(file: Path, captions: Path | None) -> str:
    wanted = f"{file.stem}.txt beside it" if captions is None else f"a line of {captions.name}"
    return f"it has no caption: it needs {wanted}, or --captioner"
