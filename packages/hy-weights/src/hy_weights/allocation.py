"""Building a module only to load weights into it: no memory, no random values, no time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_RANDOM = {"uniform_", "normal_", "kaiming_uniform_"}


@contextmanager
def unallocated() -> Iterator[None]:
    """Build modules on the `meta` device, to be filled by `load_strict`.

    ```python
    with unallocated():
        model = Model(config)
    load_strict(model, read_tensors(path), source=path)
    ```
    Buffers that are not in the state dict stay empty: such a module must be built on a real device. Random
    initialisation is skipped, not only for its futility: on the meta device PyTorch would import its symbolic maths
    for it, which takes several seconds.
    """
    with torch.device("meta"), _WithoutRandomValues():
        yield


class _WithoutRandomValues(TorchFunctionMode):
    """Makes in-place random initialisation return its tensor as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
