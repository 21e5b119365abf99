"""Text states that were encoded before the training: asked for when it begins, read where batches are made.

Shapes: B batch, S text tokens, D width.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from hy_plugins import TextTokens
from hy_plugins.protocols import TextEncoder
from lightning import Trainer
from torch import Tensor
from torch.nn.functional import pad


@runtime_checkable
class StoredTexts(Protocol):
    """A text encoder that looks states up, such as `hy_textenc.CachedTextEncoder`."""

    def require(self, prompts: Iterable[str]) -> None:
        """Refuse prompts of which it has no states, and will not make them."""
        ...

    def reader(self) -> TextEncoder | None:
        """Give what another process may read states with, on the CPU; None if that might have to encode."""
        ...


@runtime_checkable
class Captioned(Protocol):
    """A data module that knows its captions, such as `hy_data.lightning.BucketedShards`."""

    def captions(self) -> Iterable[str]:
        """Return every caption that a batch may hold; asked for after `setup`."""
        ...

    def read_texts(self, reader: Callable[[Sequence[str]], Any]) -> None:
        """From here on, put what this makes of a batch's captions into the batch, as `text`."""
        ...


def prepare_texts(trainer: Trainer, encoder: object) -> None:
    """Refuse before a training what would be missing in it, and let the data module read the states.

    The first process looks for them: the captions of the data module, the empty one, and the `prompts` of callbacks.

    Args:
        trainer: whose data module is set up.
        encoder: does nothing unless it is one of `StoredTexts`.

    Raises:
        Exception: what the encoder raises, in all processes.
    """
    if not isinstance(encoder, StoredTexts):
        return
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue] - set by a connector
    error: Exception | None = None
    if trainer.is_global_zero:
        try:
            encoder.require(_asked_for(trainer, data))
        except Exception as caught:
            error = caught
    error = trainer.strategy.broadcast(error)
    if error is not None:
        raise error
    if isinstance(data, Captioned) and (reader := encoder.reader()) is not None:
        data.read_texts(reader.encode)


def replaced(text: TextTokens, null: TextTokens, dropped: Sequence[bool]) -> TextTokens:
    """Put the empty caption's states in place of some rows.

    Args:
        text: of B captions.
        null: of one, empty.
        dropped: B of them: whether a row is to be replaced.

    Returns:
        B rows, as many columns as the longer of the two has; what is padded is 0.
    """
    device, columns = text.tokens_BSD.device, max(text.mask_BS.shape[1], null.mask_BS.shape[1])
    dropped_B = torch.tensor(list(dropped)).to(device, non_blocking=True)
    tokens_BSD, null_1SD = (_widened(each.tokens_BSD, columns) for each in (text, null))
    mask_BS, null_1S = (_widened(each.mask_BS[..., None], columns)[..., 0] for each in (text, null))
    pooled_BD = text.pooled_BD
    if pooled_BD is not None and null.pooled_BD is not None:
        pooled_BD = torch.where(dropped_B[:, None], null.pooled_BD, pooled_BD)
    tokens_BSD = torch.where(dropped_B[:, None, None], null_1SD, tokens_BSD)
    return TextTokens(tokens_BSD, torch.where(dropped_B[:, None], null_1S, mask_BS), pooled_BD)


def _widened(values_BSD: Tensor, columns: int) -> Tensor:
    return pad(values_BSD, (0, 0, 0, columns - values_BSD.shape[1]))


def _asked_for(trainer: Trainer, data: object) -> Iterator[str]:
    """Every prompt that a training will encode."""
    yield ""
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue] - set by a connector
        yield from getattr(callback, "prompts", ())
    if isinstance(data, Captioned):
        yield from data.captions()
