"""Checkpoints on the Hugging Face hub, for those who ask for them: `hf://org/name[@revision][/folder or file]`.

What exists here is never looked up there. Only weights and small text files are downloaded, into the hub's own cache,
through huggingface_hub, which the extra `hub` brings.
"""

import glob
import os
import re
from collections.abc import Callable, Collection, Sequence
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
_SETTINGS = (".json", ".txt", ".model", ".jinja")  # what tokenizers and processors are made of; small files


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
    remote = _hub_id(place)
    return (
        _here(Path(place), folders)
        if remote is None
        else _download(remote, lambda names: _wanted(names, remote, folders))
    )


def located_folder(place: str | os.PathLike[str], folders: Sequence[str] = ()) -> Path:
    """Return where a folder of models lies on this machine, whose tokenizers and processors may lie beside it.

    Args:
        place: A path, or `hf://org/name[@revision][/folder]`. Of a hub's repository the weights of that folder are
            downloaded, safetensors alone, and all its settings (JSON, vocabularies).
        folders: Folders in it whose weights are meant; where it has none of these, its own are.

    Returns:
        The folder that `place` names.

    Raises:
        CheckpointError: As `located` does.
    """
    remote = _hub_id(place)
    if remote is None:
        return _here(Path(place), ())
    return _download(remote, lambda names: (remote.inside, _models(names, remote, folders)))


def _hub_id(place: str | os.PathLike[str]) -> HubId | None:
    """Read a hub id; what exists as a path, or looks like nothing else, is none."""
    text = os.fspath(place)
    if not text.startswith("hf:/") or Path(place).exists():
        return None
    matched = _ID.fullmatch(text)
    if matched is None:
        raise CheckpointError(f"{text}: a hub id is {SCHEME}org/name[@revision][/folder or file]")
    inside = (matched["inside"] or "").strip("/")
    if ".." in PurePosixPath(inside).parts:
        raise CheckpointError(f"{text}: '..' leaves the repository")
    return HubId(matched["repository"], matched["revision"], inside)


def _here(path: Path, folders: Sequence[str]) -> Path:
    if not path.exists():
        looks_like_an_id = len(path.parts) == 2 and not path.is_absolute()
        hint = f"; if you mean a repository on the hub, write {SCHEME}{path}" if looks_like_an_id else ""
        raise CheckpointError(f"{path}: no such file or folder{hint}")
    return next((path / folder for folder in folders if (path / folder).is_dir()), path)


def _download(place: HubId, choose: Callable[[list[str]], tuple[str, list[str]]]) -> Path:
    """Download what `choose` takes of a repository's files; it also says which of their folders is meant."""
    hub = _huggingface_hub(place)
    try:
        cached, names = _listed(hub, place)
        inside, wanted = choose(names)
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
        raise _absent(names, place)
    if not folders and MANIFEST_FILE in inside:
        chosen = [name for name in inside if name.endswith(_PUBLISHED)]
    else:
        beneath = sorted({name.split("/")[0] for name in inside if "/" in name})
        file = checkpoint_file([name for name in inside if "/" not in name], place, beneath)
        chosen = [file, *_companions(file, inside), *({CONFIG_FILE, MANIFEST_FILE} & set(inside))]
    return folder, [str(PurePosixPath(folder, name)) for name in chosen]


def _models(names: Collection[str], place: HubId, folders: Sequence[str]) -> list[str]:
    """The weights that lie in a folder itself or in some of its folders, and the whole repository's settings."""
    inside = _within(place.inside, names)
    if not inside:
        raise _absent(names, place)
    parents = {str(PurePosixPath(name).parent) for name in inside}
    chosen = {folder for folder in folders if folder in parents} or {"."}
    weights = [name for name in inside if name.endswith(".safetensors") and str(PurePosixPath(name).parent) in chosen]
    settings = [name for name in names if name.endswith(_SETTINGS)]
    return [*(str(PurePosixPath(place.inside, name)) for name in weights), *settings]


def _absent(names: Collection[str], place: HubId) -> CheckpointError:
    top = sorted({name.split("/")[0] for name in names})
    return CheckpointError(f"{place}: the repository has no such folder or file; it has {listing(top)}")


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
