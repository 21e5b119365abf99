"""An optimizer's groups: parameters whose names fit a pattern, and their own learning rate."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from hy_flow.errors import FlowError


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], learning_rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Divide what is trained among groups, each in the order of its names.

    Args:
        named: parameters by name; frozen ones are left out.
        learning_rates: by pattern of names, as of a shell; a parameter belongs to the first that it fits.

    Returns:
        For the optimizer: first the parameters that fit none, if there are any, then the patterns' in their order.

    Raises:
        FlowError: nothing that is trained belongs to a pattern, or a learning rate is not positive.
    """
    groups: dict[str | None, dict[str, Any]] = {None: {"params": []}}
    groups |= {pattern: {"params": [], "lr": rate} for pattern, rate in learning_rates.items()}
    for name, parameter in named:
        if parameter.requires_grad:
            fitting = (pattern for pattern in learning_rates if fnmatchcase(name, pattern))
            groups[next(fitting, None)]["params"].append(parameter)
    for pattern, rate in learning_rates.items():
        if not rate > 0:
            raise FlowError(f"the learning rate of {pattern!r} is {rate}; it must be positive")
        if not groups[pattern]["params"]:
            raise FlowError(
                f"learning_rates names {pattern!r}, which fits nothing that is trained and not taken before"
            )
    return [group for group in groups.values() if group["params"]]
