"""A nested value as JSON and named tensors, and back: nothing that it holds is lost, and nothing is executed.

What JSON has no word for is an object of one key that begins with `$`:

| value | as JSON |
|---|---|
| tensor | `{"$tensor": name}` |
| tuple | `{"$tuple": [...]}` |
| inf, -inf, nan | `{"$float": "inf"}` |
| dictionary with a key that is no string, or begins with `$` | `{"$dict": [[key, value], ...]}` |
| `OrderedDict`, `Counter` | `{"$ordered": [[key, value], ...]}`, `{"$counter": ...}` |
| NumPy number, array | `{"$number": [dtype, value]}`, `{"$array": [name of its bytes, dtype, shape]}` |

None, True, False, whole and finite numbers, strings, lists and other dictionaries are themselves.
"""

import math
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hy_weights.errors import CheckpointError
from hy_weights.stream import DTYPE_NAMES

_PLAIN = (type(None), bool, int, str)
_NUMERIC = "biuf"  # NumPy's kinds of numbers: booleans, whole ones with and without sign, floats
_DICTIONARIES: dict[type, str] = {OrderedDict: "$ordered", Counter: "$counter"}


def flatten_state(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Take a nested value apart.

    Args:
        value: Dictionaries, lists and tuples of tensors of any shape, numbers, strings and None, NumPy's included.

    Returns:
        JSON values, and the tensors by the names that these give them: the keys that lead there, with dots. They share
        memory with the value's.

    Raises:
        CheckpointError: It holds something else; says where, and what.
    """
    tensors: dict[str, Tensor] = {}
    return _Flattener(tensors).flat(value, ""), tensors


def unflatten_state(document: Any, tensors: Mapping[str, Tensor], source: object = "this state") -> Any:
    """Put a value together again.

    Args:
        document: The JSON values.
        tensors: By name.
        source: Where they came from; it opens the error message.

    Raises:
        CheckpointError: They are not what `flatten_state` gave.
    """
    try:
        return _whole(document, tensors)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{source}: damaged, or of a later version ({type(error).__name__}: {error})") from error


def tensor_names(document: Any) -> set[str]:
    """Return the names of the tensors that a state's JSON values ask for."""
    if isinstance(document, list):
        return set().union(*map(tensor_names, document))
    if not isinstance(document, dict):
        return set()
    if "$tensor" in document:
        return {document["$tensor"]}
    if "$array" in document:
        return {document["$array"][0]}
    return tensor_names(list(document.values()))


class _Flattener:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def flat(self, value: Any, name: str) -> Any:
        """One value; `name` is made of the keys that lead to it."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if kind in (list, tuple):
            items = [self.flat(item, _join(name, place)) for place, item in enumerate(value)]
            return items if kind is list else {"$tuple": items}
        if kind is dict or kind in _DICTIONARIES:
            return self._dictionary(value, name)
        if kind in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
            return {"$tensor": self._keep(value.detach(), name)}
        return self._of_numpy(value, name)

    def _dictionary(self, value: dict[Any, Any], name: str) -> Any:
        kind = _DICTIONARIES.get(type(value))
        if kind is None and all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.flat(item, _join(name, key)) for key, item in value.items()}
        pairs = [[self.flat(key, _join(name, "key")), self.flat(item, _join(name, key))] for key, item in value.items()]
        return {kind or "$dict": pairs}

    def _of_numpy(self, value: Any, name: str) -> Any:
        numpy = sys.modules.get("numpy")  # who holds one of its values has imported it
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        if numpy is not None and kind in _NUMERIC:
            if isinstance(value, numpy.generic):
                return {"$number": [value.dtype.str, self.flat(value.item(), name)]}
            if type(value) is numpy.ndarray:
                content = numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8)
                return {"$array": [self._keep(torch.from_numpy(content), name), value.dtype.str, list(value.shape)]}
        of = f"{type(value).__module__}.{type(value).__qualname__}"
        raise CheckpointError(
            f"{name or 'the state'}: a {of} can't be stored; a state is made of tensors, numbers, strings, None, and "
            "dictionaries, lists and tuples of these"
        )

    def _keep(self, tensor: Tensor, name: str) -> str:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            what = "on meta" if tensor.is_meta else "sparse or quantized"
            raise CheckpointError(f"{name}: a tensor that is {what} can't be stored")
        if tensor.dtype not in DTYPE_NAMES:
            raise CheckpointError(
                f"{name}: a tensor of {tensor.dtype} can't be stored: safetensors files can't hold it"
            )
        name = name or "tensor"
        while name in self.tensors:  # {"a.b": …} beside {"a": {"b": …}}
            name += "'"
        self.tensors[name] = tensor
        return name


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _whole(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(document, list):
        return [_whole(item, tensors) for item in document]
    if not isinstance(document, dict):
        return document
    kind: str = next(iter(document), "")
    content: Any = document.get(kind)
    if not kind.startswith("$"):
        return {key: _whole(value, tensors) for key, value in document.items()}
    if kind in ("$tensor", "$array"):
        return tensors[content] if kind == "$tensor" else _array(tensors[content[0]], *content[1:])
    return _MAKERS[kind](_whole(content, tensors))


def _array(content: Tensor, dtype: str, shape: Iterable[int]) -> Any:
    # A copy: an array that looked into a mapped file would hold on to it, wherever in it the bytes lie.
    return content.clone().numpy().view(_numeric(dtype)).reshape(tuple(shape))


def _numeric(dtype: str) -> Any:
    import numpy

    kind = numpy.dtype(dtype)
    if kind.kind not in _NUMERIC:
        raise ValueError(f"{dtype} is no kind of number")
    return kind


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": tuple,
    "$float": float,
    "$dict": dict,
    "$ordered": OrderedDict,
    "$counter": lambda pairs: Counter(dict(pairs)),
    "$number": lambda content: _numeric(content[0]).type(content[1]),
}
