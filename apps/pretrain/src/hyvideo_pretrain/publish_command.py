"""`hyvideo pretrain publish`: the models of a run that has not come to its end, or of one of its checkpoints."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hy_weights import CheckpointError, StoredTensors, unflatten_state, verify
from hy_weights.state_folder import read_document
from hy_weights.state_names import TENSORS_FILE

from hyvideo_pretrain.publish import DTYPES, PublishError, number_format, require_plain, write_models
from hyvideo_pretrain.run_folder import holds_checkpoints, newest_whole

DESCRIPTION = """Publish the models of a training checkpoint, as a run does at its end: a folder that `hyvideo sample`
takes. What the recipe's callback `Publish` says of included folders, sampling and number format holds here, too."""


def publish(argv: Sequence[str]) -> int:
    """Run the command; return the exit code.

    Raises:
        PublishError: The checkpoint holds no model that can be published, or a folder to include is not there.
        CheckpointError: It is torn or none, or the place can't be written or is not ours to replace.
        NothingToResume: No checkpoint of the run is whole.
    """
    asked = _parser().parse_args(argv)
    checkpoint = newest_whole(asked.place) if holds_checkpoints(asked.place) else asked.place
    publish_checkpoint(checkpoint, asked.out, weights=asked.weights, dtype=asked.dtype)
    print(f"{asked.out}: the models of {checkpoint}")
    return 0


def publish_checkpoint(checkpoint: Path, folder: Path, *, weights: str = "average", dtype: str | None = None) -> None:
    """Publish the models of a checkpoint; one model is in memory at a time.

    Args:
        checkpoint: A folder such as `step-00001200`.
        folder: Where the models go.
        weights: "average", where the run averages them, or "current".
        dtype: Number format of the floating-point weights; None: that of the run.

    Raises:
        PublishError: It holds no model that can be published, or a folder to include is not there.
        CheckpointError: It is torn or none, or the place can't be written or is not ours to replace.
    """
    provenance = verify(checkpoint)["provenance"]
    stored = StoredTensors(checkpoint / TENSORS_FILE)
    document = read_document(checkpoint)
    models = unflatten_state(document.get("models"), stored, checkpoint)
    if not models:
        raise PublishError(
            f"{checkpoint}: holds no model that can be published: its module has no models() that says what they are"
        )
    settings = unflatten_state(document.get("callbacks", {}).get("Publish", {}), stored, checkpoint)
    include = {name: Path(path) for name, path in settings.get("include", {}).items()}
    require_plain([*models, *include])
    for name, path in include.items():
        if not path.is_dir():
            raise PublishError(f"{path}: no such folder to include as {name!r}; paths are those of the run's recipe")
        verify(path)  # a checkpoint of somebody else's must not make us copy whatever lies on this machine
    key = "current_model_state" if weights == "current" and "current_model_state" in document else "state_dict"
    state = unflatten_state(document[key], stored, checkpoint)
    parts = ((name, _part(state, told["prefix"]), told["config"]) for name, told in models.items())
    made_by = {"module": document["module"], "steps": provenance["step"], "weights": weights}
    number = number_format(dtype or settings.get("dtype", DTYPES[0]))
    write_models(folder, parts, include, settings.get("sampling", {}), number, made_by)


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        raise CheckpointError(f"no weights under {prefix!r}")
    return found


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser("hyvideo pretrain publish", description=DESCRIPTION)
    result.add_argument(
        "place", type=Path, metavar="PLACE", help="a run's folder (its newest whole checkpoint), or one"
    )
    result.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the models go")
    kinds = ("average", "current")
    what = "the averaged weights, where the run averages them, or the current ones (average)"
    result.add_argument("--weights", choices=kinds, default="average", help=what)
    result.add_argument("--dtype", choices=DTYPES, help="number format of the weights (that of the recipe, or float32)")
    return result
