"""Checkpoints on the Hugging Face hub, for those who ask for them: `hf://org/name[@revision][/folder or file]`.

What exists here is never looked up there. Only weights and their JSON files are downloaded, into the hub's own cache,
through huggingface_hub, which the extra `hub` brings.
"""

import glob
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hy_weights.errors import CheckpointError, listing
from hy_weights.manifest import MANIFEST_FILE
from hy_weights.reading import CONFIG_FILE
from hy_weights.stored import INDEX_SUFFIX, SUFFIXES, checkpoint_file

SCHEME = "hf://"
_ID = re.compile(
    r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/\w+/[^/]+|[^/]+))?(?:/(?P<inside>.+))?"
)
_PUBLISHED = (".json", ".safetensors")


@dataclass(frozen=True, slots=True)
class HubId:
    """A place on the hub.

    Attributes:
        repository: `org/name`.
        revision: A branch, a tag or a commit; None is the main branch.
        inside: A folder or file of the repository; empty for its top.
    """

    repository: str
    revision: str | None
    inside: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return SCHEME + self.repository + revision + (f"/{self.inside}" if self.inside else "")


def located(place: str | os.PathLike[str], folders: Sequence[str] = ()) -> Path:
    """Return where a checkpoint lies on this machine; one that a hub id names is downloaded, if it isn't already.

    Args:
        place: A path, or `hf://org/name[@revision][/folder or file]`. Whatever exists as a path is one.
        folders: What a whole pipeline calls the folder of this part of it, such as "transformer" or "vae": the first
            that is there is meant.

    Returns:
        `place` itself or such a folder of it; or a folder or file in the hub's cache.

    Raises:
        CheckpointError: There is no such path. Or huggingface_hub isn't installed, the hub can't be reached, there is
            no such repository, revision or file, access to it must be asked for, or it holds no checkpoint or several.
    """
    path = Path(place)
    text = os.fspath(place)
    if not text.startswith("hf:/") or path.exists():
        return _here(path, folders)
    matched = _ID.fullmatch(text)
    if matched is None:
        raise CheckpointError(f"{text}: a hub id is {SCHEME}org/name[@revision][/folder or file]")
    inside = (matched["inside"] or "").strip("/")
    if ".." in PurePosixPath(inside).parts:
        raise CheckpointError(f"{text}: '..' leaves the repository")
    return _download(HubId(matched["repository"], matched["revision"], inside), folders)


def _here(path: Path, folders: Sequence[str]) -> Path:
    if not path.exists():
        looks_like_an_id = len(path.parts) == 2 and not path.is_absolute()
        hint = f"; if you mean a repository on the hub, write {SCHEME}{path}" if looks_like_an_id else ""
        raise CheckpointError(f"{path}: no such file or folder{hint}")
    return next((path / folder for folder in folders if (path / folder).is_dir()), path)


def _download(place: HubId, folders: Sequence[str]) -> Path:
    hub = _huggingface_hub(place)
    try:
        cached, names = _listed(hub, place)
        inside, wanted = _wanted(names, place, folders)
        if cached is not None:
            return cached / inside
        exactly = [glob.escape(name) for name in wanted]
        return Path(hub.snapshot_download(place.repository, revision=place.revision, allow_patterns=exactly)) / inside
    except CheckpointError:
        raise
    except Exception as error:  # each of the client's transports has errors of its own
        raise CheckpointError(f"{place}: {_reason(hub.errors, error)}") from error


def _huggingface_hub(place: HubId) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointError(f"{place}: the hub needs huggingface_hub: pip install 'hy-weights[hub]'") from error
    return huggingface_hub


def _listed(hub: Any, place: HubId) -> tuple[Path | None, list[str]]:
    """A repository's files; of the cached copy, and where that is, if the hub can't be reached."""
    try:
        info = hub.HfApi().model_info(place.repository, revision=place.revision)
    except hub.errors.HfHubHTTPError:  # it was reached, and refused
        raise
    except (OSError, hub.errors.HTTPError):
        cached = Path(
            hub.snapshot_download(place.repository, revision=place.revision, local_files_only=True, allow_patterns=[])
        )
        return cached, [file.relative_to(cached).as_posix() for file in cached.rglob("*") if file.is_file()]
    return None, [file.rfilename for file in info.siblings or ()]


def _wanted(names: Collection[str], place: HubId, folders: Sequence[str]) -> tuple[str, list[str]]:
    """The file or folder that holds the checkpoint, and the names of all files that belong to it."""
    if place.inside in names:
        if not place.inside.endswith((*SUFFIXES, INDEX_SUFFIX)):
            raise CheckpointError(f"{place}: weights are in {', '.join(SUFFIXES)} files; nothing else is downloaded")
        return place.inside, [place.inside, *_companions(place.inside, names)]
    tops = [str(PurePosixPath(place.inside, folder)) for folder in folders]
    folder = next((top for top in tops if _within(top, names)), place.inside)
    inside = _within(folder, names)
    if not inside:
        top = sorted({name.split("/")[0] for name in names})
        raise CheckpointError(f"{place}: the repository has no such folder or file; it has {listing(top)}")
    if not folders and MANIFEST_FILE in inside:
        chosen = [name for name in inside if name.endswith(_PUBLISHED)]
    else:
        beneath = sorted({name.split("/")[0] for name in inside if "/" in name})
        file = checkpoint_file([name for name in inside if "/" not in name], place, beneath)
        chosen = [file, *_companions(file, inside), *({CONFIG_FILE, MANIFEST_FILE} & set(inside))]
    return folder, [str(PurePosixPath(folder, name)) for name in chosen]


def _within(folder: str, names: Collection[str]) -> list[str]:
    """The files beneath a folder, by their path from there."""
    start = f"{folder}/" if folder not in ("", ".") else ""
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def _companions(file: str, names: Collection[str]) -> list[str]:
    """The files that an index names: those that are called as it is, with a number. Or the scales of an fp8 file."""
    if not file.endswith(INDEX_SUFFIX):
        stem = str(PurePosixPath(file).with_suffix(""))
        return [name for name in names if name in {f"{stem}_map{suffix}" for suffix in SUFFIXES}]
    start = f"{file.removesuffix(INDEX_SUFFIX).removesuffix('.safetensors')}-"
    return [name for name in names if name.startswith(start) and name.endswith(SUFFIXES)]


def _reason(errors: Any, error: Exception) -> str:
    if isinstance(error, errors.GatedRepoError):
        return "access must be asked for on the repository's page; then log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository on the hub, or a private one: check the name, or log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such branch, tag or commit"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "the hub can't be reached, and its cache on this machine has no copy"
    return f"the download failed ({next(iter(str(error).strip().splitlines()), type(error).__name__)})"
