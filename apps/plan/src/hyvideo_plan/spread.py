"""How a recipe's training is spread over devices, and what that adds on each."""

from collections.abc import Mapping, Sequence
from typing import Any

from hyvideo_plan.errors import PlanError

_SHARDING = ("fsdp", "deepspeed", "model_parallel", "modelparallel")


def read_devices(trainer: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Count the devices of all nodes.

    Returns:
        How many there are, 2 where that depends on the machine; and what is not planned for.

    Raises:
        PlanError: it does not say a number.
    """
    name = _strategy_name(trainer)
    notes: tuple[str, ...] = ()
    if any(part in name for part in _SHARDING):
        notes = (f"strategy {name} is planned for as if every device held all weights, moments and gradients",)
    local = _local(trainer.get("devices", "auto"))
    if local is None and trainer.get("accelerator") == "cpu":
        local = 1
    if local is None:
        return 2, (*notes, "devices are as many as the machine has: planned for several, which keep DDP's buckets")
    return local * _number("num_nodes", trainer.get("num_nodes") or 1), notes


def views_buckets(trainer: Mapping[str, Any]) -> bool:
    """Whether gradients are views of DDP's buckets, and no copies of them."""
    strategy = trainer.get("strategy")
    if not isinstance(strategy, Mapping):
        return False
    return bool((strategy.get("init_args") or strategy.get("dict_kwargs") or {}).get("gradient_as_bucket_view"))


def _local(devices: Any) -> int | None:
    """Devices of one node; None: all that there are."""
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices)
    return None if str(devices) in ("auto", "-1", "None") else _number("devices", devices)


def _number(name: str, given: Any) -> int:
    try:
        return int(given)
    except (TypeError, ValueError) as error:
        raise PlanError(f"trainer.{name} is {given!r}; planned are a number, a list of devices, auto and -1") from error


def _strategy_name(trainer: Mapping[str, Any]) -> str:
    strategy = trainer.get("strategy") or "auto"
    return str(strategy.get("class_path", "") if isinstance(strategy, Mapping) else strategy).lower()
