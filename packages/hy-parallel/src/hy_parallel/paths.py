"""Finding a model's blocks by the paths of a parallel plan."""

import re
from collections.abc import Sequence

from torch import nn

from hy_parallel.errors import ParallelError


def find_blocks(module: nn.Module, paths: Sequence[str]) -> list[nn.Module]:
    """Return the modules at `paths`, in the order of the paths and then of the model.

    Args:
        module: the model.
        paths: dotted paths, where `*` stands for any index; a `ParallelPlan`'s `blocks`.

    Raises:
        ParallelError: a path matches no module.
    """
    found: list[nn.Module] = []
    for path in paths:
        pattern = re.compile(re.escape(path).replace(r"\*", r"\d+"))
        matching = [part for name, part in module.named_modules() if pattern.fullmatch(name)]
        if not matching:
            raise ParallelError(f"{type(module).__name__} has no module at {path!r}, where * stands for an index")
        found += [part for part in matching if part not in found]
    return found
