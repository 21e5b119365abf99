"""FlowMatching and its text encoder: trained, frozen, or reading states that are stored.

Shapes: B batch, S text tokens, D width.
"""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hy_plugins import HyError, TextTokens

pytest.importorskip("lightning", reason="training is the extra hy-flow[train]")
from hy_flow.lightning import EMA, FlowMatching
from hy_flow.lightning.texts import replaced
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import Callback
from torch.optim import AdamW

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a .validation_step. but have no",
    "ignore:Found . module.s. in eval mode",
    "ignore:.isinstance.treespec",
    "ignore:The .*dataloader.* does not have many workers",
)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.25, 0.2, 0.3), (1.0, 1, 1)])
def test_that_share_of_captions_is_dropped_in_training_only(toys, toy_batches, trainer, loader, share, low, high):
    module = FlowMatching(*toys, caption_dropout=share)
    batches = loader(toy_batches(10))
    seen = module.text_encoder.seen
    trainer(max_steps=10).fit(module, batches)
    assert len(seen) == 1280
    assert low <= seen.count("") / len(seen) <= high
    seen.clear()
    trainer().validate(module, batches, verbose=False)
    assert len(seen) == 1280
    assert "" not in seen


def test_a_frozen_text_encoder_stays_as_it_is(toys, toy_batches, trainer, loader, parameters):
    encoder = toys[1]
    module = FlowMatching(*toys, optimizer=partial(AdamW, lr=0.1, weight_decay=0.5), freeze_text_encoder=True)
    before, table = parameters(module), encoder.table.weight.detach().clone()
    fit = trainer(max_steps=3)
    fit.fit(module, loader(toy_batches(3)))
    after = parameters(module)
    (group,) = fit.optimizers[0].param_groups
    assert len(group["params"]) == 6
    assert torch.equal(table, encoder.table.weight)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not torch.equal(before["backbone.layers.0.weight"], after["backbone.layers.0.weight"])
    assert {name.split(".")[0] for name in module.state_dict()} == {"backbone"}
    assert module.models() == {"dit": toys[0], "text_encoder": encoder}


def test_the_text_encoder_learns_with_the_backbone(toys, toy_batches, trainer, loader, parameters):
    module = FlowMatching(*toys, warmup_steps=0)
    before = parameters(module)
    trainer(max_steps=3).fit(module, loader(toy_batches(3)))
    assert not any(torch.equal(value, before[name]) for name, value in parameters(module).items())
    assert module.models() == {"dit": toys[0], "text_encoder": toys[1]}


def test_text_states_come_to_the_modules_device(toys):
    backbone, encoder = toys
    moved = []

    class Recorded(TextTokens):
        def to(self, device=None, dtype=None):
            moved.append(device)
            return TextTokens(self.tokens_BSD, self.mask_BS, self.pooled_BD)

    class Elsewhere:
        def encode(self, prompts):
            text = encoder.encode(prompts)
            return Recorded(text.tokens_BSD, text.mask_BS, text.pooled_BD)

    module = FlowMatching(backbone, Elsewhere())
    module.sample(["left"], torch.zeros(1, 2, 1, 1, 1), steps=1, guidance=2.0)
    assert moved == [module.device] * 2


class Stored:
    """States by prompt, of as many tokens as it has letters; what is not in `known` is refused."""

    def __init__(self, known, reads=True):
        self.known, self.reads = set(known), reads
        self.encoded = []

    def encode(self, prompts):
        self.encoded.append(list(prompts))
        return states(prompts)

    def require(self, prompts):
        if lacking := [prompt for prompt in prompts if prompt not in self.known]:
            raise HyError(f"{len(lacking)} are missing: {lacking}")

    def reader(self):
        return SimpleNamespace(encode=states) if self.reads else None


def states(prompts):
    drawn = [torch.randn(1 + len(text), 8, generator=torch.Generator().manual_seed(len(text))) for text in prompts]
    tokens_BSD = torch.nn.utils.rnn.pad_sequence(drawn, batch_first=True)
    lengths_B = torch.tensor([len(rows) for rows in drawn])
    mask_BS = torch.arange(tokens_BSD.shape[1]) < lengths_B[:, None]
    return TextTokens(tokens_BSD, mask_BS, tokens_BSD[:, 0])


class Captioned(LightningDataModule):
    """Batches whose states its loader reads, once it is told how."""

    def __init__(self, batches, others=()):
        super().__init__()
        self.batches, self.others, self.reader = batches, others, None

    def captions(self):
        return [caption for batch in self.batches for caption in batch["captions"]] + list(self.others)

    def read_texts(self, reader):
        self.reader = reader

    def train_dataloader(self):
        batches = self.batches
        if self.reader is not None:
            batches = [batch | {"text": self.reader(batch["captions"])} for batch in batches]
        return torch.utils.data.DataLoader(batches, batch_size=None)


class Sheets(Callback):
    prompts = ("a sheet", "left")


KNOWN = {"", "left", "right", "a sheet"}


@pytest.mark.parametrize("lacks", ["", "right", "a sheet", "held out"])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_training_will_ask_for_is_looked_for_before_it_begins(toys, toy_batches, trainer, lacks, frozen):
    encoder = Stored({*KNOWN, "held out"} - {lacks})
    module = FlowMatching(toys[0], encoder, freeze_text_encoder=frozen)
    data = Captioned(toy_batches(1), others=["held out"])
    with pytest.raises(HyError, match=rf"missing: \['{lacks}'"):
        trainer(max_steps=1, callbacks=[Sheets()]).fit(module, data)
    assert encoder.encoded == []
    encoder.known.add(lacks)
    trainer(max_steps=1, callbacks=[Sheets()]).fit(module, data)


def test_without_a_training_nothing_is_looked_for(toys, toy_batches, trainer, loader):
    trainer().validate(FlowMatching(toys[0], Stored([])), loader(toy_batches(1)), verbose=False)


def texts_of(backbone):
    told = []
    backbone.register_forward_hook(lambda _module, inputs, _output: told.append(inputs[2]))
    return told


def test_states_that_come_with_a_batch_are_those_that_the_module_would_encode(toys, toy_batches, trainer, loader):
    """The same captions are dropped, by seed, number and row alone; the empty one is encoded once."""
    batches = [batch | {"number": number} for number, batch in enumerate(toy_batches(3, size=16))]
    given = []
    for reads in (False, True):
        backbone, encoder = copy.deepcopy(toys[0]), Stored(KNOWN, reads)
        told = texts_of(backbone)
        module = FlowMatching(backbone, encoder, caption_dropout=0.3, seed=5)
        trainer(max_steps=3, callbacks=[EMA(0.9)]).fit(module, Captioned(batches))
        given.append(told)
    assert encoder.encoded == [[""]]
    dropped = 0
    for encoded, read in zip(*given, strict=True):
        assert torch.equal(read.pooled_BD, encoded.pooled_BD)
        for row in range(16):
            assert torch.equal(read.tokens_BSD[row][read.mask_BS[row]], encoded.tokens_BSD[row][encoded.mask_BS[row]])
            dropped += int(read.mask_BS[row].sum()) == 1
    assert 0 < dropped < 48


def test_validation_takes_the_states_as_they_come(toys, toy_batches, trainer, loader):
    encoder, told = Stored(KNOWN), texts_of(toys[0])
    (batch,) = toy_batches(1, size=4)
    batch["text"] = states(batch["captions"])
    module = FlowMatching(toys[0], encoder, caption_dropout=1.0)
    trainer().validate(module, loader([batch]), verbose=False)
    assert encoder.encoded == []
    assert torch.equal(told[0].tokens_BSD, batch["text"].tokens_BSD)


@pytest.mark.parametrize("prompts", [["", "abc", "ab"], ["a long caption", "a"]])
def test_rows_are_replaced_whichever_is_longer(prompts):
    text, null = states(prompts), states(["empty"])
    found = replaced(text, null, [False, True, False][: len(prompts)])
    columns = max(text.mask_BS.shape[1], 6)
    assert found.tokens_BSD.shape == (len(prompts), columns, 8)
    assert found.mask_BS.sum(dim=1).tolist() == [1 + len(prompts[0]), 6, *(1 + len(text) for text in prompts[2:])]
    assert torch.equal(found.tokens_BSD[1, :6], null.tokens_BSD[0])
    assert torch.equal(found.pooled_BD[1], null.pooled_BD[0])
    assert torch.equal(found.tokens_BSD[0, :1], text.tokens_BSD[0, :1])
    assert torch.equal(found.pooled_BD[0], text.pooled_BD[0])
    assert not found.tokens_BSD[~found.mask_BS].any()
    without = replaced(
        TextTokens(text.tokens_BSD, text.mask_BS), TextTokens(null.tokens_BSD, null.mask_BS), [True] * len(prompts)
    )
    assert without.pooled_BD is None
