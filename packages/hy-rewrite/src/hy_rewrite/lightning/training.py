"""Fine-tuning a language model's LoRA on pairs of prompts and rewrites (paper section 4.6). Needs the extra `train`.

Shapes: B pairs, S tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from hy_rewrite.dialogue import answer_text, rewriting
from hy_rewrite.errors import RewriteError
from hy_rewrite.local import load_model, load_tokenizer, rendered
from hy_rewrite.pairs import Pair
from hy_rewrite.rewriter import MAX_LENGTH

IGNORED = -100  # the label that transformers' loss leaves out


class Tokens(NamedTuple):
    """A batch, padded on the right.

    Attributes:
        ids_BS: The dialogues and their answers.
        mask_BS: True but for padding.
        labels_BS: The answers' tokens, and `IGNORED` elsewhere.
    """

    ids_BS: Tensor
    mask_BS: Tensor
    labels_BS: Tensor


class RewriterTraining(LightningModule):
    """Trains a LoRA so that the model answers with a pair's rewrite at once: no examples, no revision.

    The loss is the cross entropy of the answer's tokens and of the token that ends it; the base model stays as it is,
    and checkpoints hold the LoRA alone.

    Args:
        model: A folder, or `hf://org/name[@revision]`, see `local_rewriter`.
        dtype: Of the base model's weights, see `local_rewriter`; those of the LoRA are float32.
        rank: Of the LoRA.
        alpha: Its scale is alpha / rank.
        dropout: Share of its inputs that are dropped, in [0, 1).
        layers: Names of the linear layers that get one; None is all of them but the head.
        optimizer: Makes the optimizer from the LoRA's parameters; a recipe names its class and settings.
        warmup_steps: Steps in which the learning rate rises to the optimizer's; then it stays.
        max_tokens: Longer pairs are left out.
        checkpointing: Compute each layer again in the backward pass, to save memory.

    Raises:
        RewriteError: A value is out of its range, the model can't be read, or it has none of the layers.
    """

    def __init__(
        self,
        model: str,
        dtype: str = "auto",
        rank: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.0,
        layers: list[str] | None = None,
        optimizer: OptimizerCallable = AdamW,
        warmup_steps: int = 20,
        max_tokens: int = 2048,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (("rank", rank, 1), ("warmup_steps", warmup_steps, 0), ("max_tokens", max_tokens, 1)):
            if value < least:
                raise RewriteError(f"{name} is {value}; it must be at least {least}")
        self.save_hyperparameters(ignore=["optimizer"])
        self.strict_loading = False  # what checkpoints leave out is the base model; `on_load_checkpoint` is strict
        self.optimizer = optimizer
        self.warmup_steps = warmup_steps
        self.max_tokens = max_tokens
        self.tokenizer = load_tokenizer(model)
        base = load_model(model, dtype)
        if checkpointing:
            # The second name is deprecated, and the only one in the first releases of transformers 5.
            enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        config = LoraConfig(
            r=rank,
            lora_alpha=cast("int", alpha),
            lora_dropout=dropout,
            target_modules=layers or "all-linear",
            task_type="CAUSAL_LM",
        )
        try:
            self.model = cast("PeftModel", get_peft_model(base, config))
        except ValueError as error:
            raise RewriteError(f"{model}: {next(iter(str(error).splitlines()))}") from error
        self.model.train()  # recomputing is only done then

    def tokens(self, pairs: Sequence[Pair]) -> Tokens | None:
        """Return what is trained on for those pairs that are short enough; None if none is."""
        rows = [row for pair in pairs if len((row := self._row(pair))[0]) + len(row[1]) <= self.max_tokens]
        if not rows:
            return None
        longest = max(len(asked) + len(answer) for asked, answer in rows)
        ids_BS = torch.zeros(len(rows), longest, dtype=torch.long)
        mask_BS = torch.zeros(len(rows), longest, dtype=torch.bool)
        labels_BS = torch.full((len(rows), longest), IGNORED)
        for place, (asked, answer) in enumerate(rows):
            end = len(asked) + len(answer)
            ids_BS[place, :end] = torch.tensor(asked + answer)
            mask_BS[place, :end] = True
            labels_BS[place, len(asked) : end] = torch.tensor(answer)
        return Tokens(ids_BS.to(self.device), mask_BS.to(self.device), labels_BS.to(self.device))

    def _row(self, pair: Pair) -> tuple[list[int], list[int]]:
        """The tokens of a dialogue as a rewriter begins it, and those of the answer, which one token ends."""
        messages = rewriting(pair.prompt, pair.mode, pair.language, MAX_LENGTH, with_examples=False)
        asked = self.tokenizer(rendered(self.tokenizer, messages), add_special_tokens=False)["input_ids"]
        answer = self.tokenizer(answer_text(pair.fields), add_special_tokens=False)["input_ids"]
        return cast("list[int]", asked), [*cast("list[int]", answer), cast("int", self.tokenizer.eos_token_id)]

    def loss(self, tokens: Tokens) -> Tensor:
        """Return the mean cross entropy of the labelled tokens."""
        return self.model(input_ids=tokens.ids_BS, attention_mask=tokens.mask_BS.long(), labels=tokens.labels_BS).loss

    def training_step(self, batch: list[Pair], batch_idx: int) -> Tensor | None:
        """Return the loss; None, which Lightning passes over, if all pairs are too long."""
        tokens = self.tokens(batch)
        kept = 0 if tokens is None else len(tokens.ids_BS)
        self.log("train/left_out", float(len(batch) - kept), batch_size=len(batch))
        if tokens is None:
            return None
        loss = self.loss(tokens)
        self.log("train/loss", loss, prog_bar=True, batch_size=kept)
        return loss

    def validation_step(self, batch: list[Pair], batch_idx: int) -> None:
        """Log the loss of held-out pairs."""
        tokens = self.tokens(batch)
        if tokens is not None:
            self.log("val/loss", self.loss(tokens), prog_bar=True, batch_size=len(tokens.ids_BS), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the LoRA's parameters, with a linear warm-up per step."""
        optimizer = self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, self.warmup_steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the LoRA alone."""
        checkpoint["state_dict"] = get_peft_model_state_dict(self.model)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Read the LoRA.

        Raises:
            RewriteError: The checkpoint holds another one.
        """
        held, own = checkpoint["state_dict"], get_peft_model_state_dict(self.model)
        wrong = [key for key in {*held, *own} if key not in held or key not in own or held[key].shape != own[key].shape]
        if wrong:
            raise RewriteError(f"the checkpoint's LoRA is not this model's; {len(wrong)} differ, first {min(wrong)}")
        set_peft_model_state_dict(self.model, held)
