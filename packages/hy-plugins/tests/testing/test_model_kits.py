"""The kits of autoencoder, text encoder and backbone pass good models, and see each way to break a promise.

Shapes: B batch, C channels, T H W frames/height/width, S text tokens, D width.
"""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from hy_plugins.testing import AutoencoderContract, BackboneContract, TextEncoderContract  # noqa: E402
from hy_plugins.types import TextTokens  # noqa: E402


class Posterior:
    def __init__(self, mean, logvar):
        self.mean, self.logvar = mean, logvar

    def sample(self, generator=None):
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean.dtype)
        return self.mean + (0.5 * self.logvar).exp() * noise

    def mode(self):
        return self.mean


class Patches(torch.nn.Module):
    """A frame on its own, then groups of two frames, in patches of two by two."""

    compression, latent_channels, scaling_factor = (2, 2, 2), 6, 0.5
    posterior = Posterior

    def __init__(self):
        super().__init__()
        self.down = torch.nn.Conv3d(3, 12, (2, 2, 2), stride=(2, 2, 2))
        self.up = torch.nn.ConvTranspose3d(6, 3, (2, 2, 2), stride=(2, 2, 2))

    def encode(self, video_BCTHW):
        assert video_BCTHW.abs().max() <= 1
        first_BCTHW = video_BCTHW[:, :, :1]
        mean, logvar = self.down(torch.cat([first_BCTHW, video_BCTHW], 2)).chunk(2, 1)
        return self.posterior(mean, logvar)

    def decode(self, latent_BCTHW):
        return self.up(latent_BCTHW)[:, :, 1:]


class TestPatches(AutoencoderContract):
    def make(self):
        return Patches()


class MoreChannels(Patches):
    latent_channels = 7


class LosesAFrame(Patches):
    def decode(self, latent_BCTHW):
        return super().decode(latent_BCTHW)[:, :, 1:]


class NoImages(Patches):
    def encode(self, video_BCTHW):
        return self.posterior(*self.down(video_BCTHW[:, :, 1:]).chunk(2, 1))


class SamplesAtWill(Patches):
    class posterior(Posterior):
        def sample(self, generator=None):
            return super().sample()


class NeverSamples(Patches):
    class posterior(Posterior):
        def sample(self, generator=None):
            return self.mean


class OneLogvar(Patches):
    def encode(self, video_BCTHW):
        posterior = super().encode(video_BCTHW)
        return self.posterior(posterior.mean, posterior.logvar[:, :1])


class NormOverBatch(Patches):
    def encode(self, video_BCTHW):
        return super().encode(video_BCTHW - video_BCTHW.mean(0))


class HiddenWeight(Patches):
    def __init__(self):
        super().__init__()
        self.hidden = torch.randn(())

    def decode(self, latent_BCTHW):
        return super().decode(latent_BCTHW * self.hidden)


class Float32Decoder(Patches):
    def decode(self, latent_BCTHW):
        return super().decode(latent_BCTHW).float()


@pytest.mark.parametrize(
    ("autoencoder", "broken", "message"),
    [
        (MoreChannels, "shapes_and_samples", "latents: [2, 6, 1, 4, 4], not [2, 7, 1, 4, 4]"),
        (LosesAFrame, "shapes_and_samples", "decoded: [2, 3, 0, 8, 8], not [2, 3, 1, 8, 8]"),
        (NoImages, "shapes_and_samples", "RuntimeError"),
        (OneLogvar, "shapes_and_samples", "latents: [2, 1, 1, 4, 4], not [2, 6, 1, 4, 4]"),
        (SamplesAtWill, "shapes_and_samples", "the same seed draws other latents"),
        (NeverSamples, "shapes_and_samples", "another seed draws the same latents"),
        (NormOverBatch, "samples_are_independent", "not close"),
        (HiddenWeight, "state_dict_round_trip", "not close"),
        (Float32Decoder, "bf16", "decoded is torch.float32"),
    ],
)
def test_a_broken_autoencoder_is_seen(broken_promises, autoencoder, broken, message):
    class Kit(AutoencoderContract):
        def make(self):
            return autoencoder()

    assert message in broken_promises(Kit)[f"test_{broken}"]


class Letters(torch.nn.Module):
    """Each letter is a token, after a token for the start."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(128, 8)

    def encode(self, prompts):
        codes = [torch.tensor([1, *prompt.encode()]) for prompt in prompts]
        mask_BS = torch.nn.utils.rnn.pad_sequence([torch.ones_like(code) for code in codes], batch_first=True).bool()
        tokens_BSD = self.embedding(torch.nn.utils.rnn.pad_sequence(codes, batch_first=True))
        return self.text(tokens_BSD, mask_BS)

    def text(self, tokens_BSD, mask_BS):
        return TextTokens(tokens_BSD, mask_BS, tokens_BSD[:, 0])


class TestLetters(TextEncoderContract):
    def make(self):
        return Letters()


class Unpooled(Letters):
    def text(self, tokens_BSD, mask_BS):
        return TextTokens(tokens_BSD, mask_BS)


class TestUnpooled(TextEncoderContract):
    def make(self):
        return Unpooled()


class PadsLeft(Letters):
    def text(self, tokens_BSD, mask_BS):
        rolled = [(~mask_S).sum() for mask_S in mask_BS]
        mask_BS = torch.stack([mask_S.roll(int(by)) for mask_S, by in zip(mask_BS, rolled, strict=True)])
        return TextTokens(tokens_BSD, mask_BS, tokens_BSD[:, 0])


class PadsInside(Letters):
    def text(self, tokens_BSD, mask_BS):
        mask_BS = mask_BS.clone()
        mask_BS[:, 2] = False
        return TextTokens(tokens_BSD, mask_BS | (torch.arange(mask_BS.shape[1]) == 3), tokens_BSD[:, 0])


class NothingForEmpty(Letters):
    def text(self, tokens_BSD, mask_BS):
        return TextTokens(tokens_BSD, mask_BS & (mask_BS.sum(1, keepdim=True) > 1), tokens_BSD[:, 0])


class NumbersAsMask(Letters):
    def text(self, tokens_BSD, mask_BS):
        return TextTokens(tokens_BSD, mask_BS.long(), tokens_BSD[:, 0])


class MaskTooLong(Letters):
    def text(self, tokens_BSD, mask_BS):
        return TextTokens(tokens_BSD[:, 1:], mask_BS, tokens_BSD[:, 0])


class FlatTokens(Letters):
    def text(self, tokens_BSD, mask_BS):
        return TextTokens(tokens_BSD[..., 0], mask_BS, tokens_BSD[:, 0])


class PooledTokens(Letters):
    def text(self, tokens_BSD, mask_BS):
        return TextTokens(tokens_BSD, mask_BS, tokens_BSD)


class PoolsThePadding(Letters):
    def text(self, tokens_BSD, mask_BS):
        return TextTokens(tokens_BSD, mask_BS, tokens_BSD[:, -1])


class HiddenTable(Letters):
    def __init__(self):
        super().__init__()
        self.hidden = torch.randn(8)

    def text(self, tokens_BSD, mask_BS):
        return super().text(tokens_BSD + self.hidden, mask_BS)


class Float32Tokens(Letters):
    def text(self, tokens_BSD, mask_BS):
        return super().text(tokens_BSD.float(), mask_BS)


@pytest.mark.parametrize(
    ("encoder", "broken", "message"),
    [
        (PadsLeft, "tokens", "a prompt has no real token at its start"),
        (PadsInside, "tokens", "padding is not on the right"),
        (NothingForEmpty, "tokens", "a prompt has no real token at its start"),
        (NumbersAsMask, "tokens", "mask_BS: "),
        (MaskTooLong, "tokens", "mask_BS: "),
        (FlatTokens, "tokens", "axes and prompts of tokens_BSD: (2, 3), not (3, 3)"),
        (PooledTokens, "tokens", "axes and prompts of pooled_BD: (3, 3), not (2, 3)"),
        (PoolsThePadding, "samples_are_independent", "pooled_BD"),
        (HiddenTable, "state_dict_round_trip", "not close"),
        (Float32Tokens, "bf16", "is torch.float32"),
    ],
)
def test_a_broken_text_encoder_is_seen(broken_promises, encoder, broken, message):
    class Kit(TextEncoderContract):
        def make(self):
            return encoder()

    assert message in broken_promises(Kit)[f"test_{broken}"]


class Mixer(torch.nn.Module):
    """Everything summed into the channels; the last layer starts at zero, as a released backbone's does."""

    uses = SimpleNamespace(text=1, pooled=1, time=1, guidance=1, latent=1)

    def __init__(self):
        super().__init__()
        self.latent, self.text, self.pooled = torch.nn.Linear(4, 8), torch.nn.Linear(16, 8), torch.nn.Linear(5, 8)
        self.times = torch.nn.Linear(2, 8)
        self.last = torch.nn.Linear(8, 4)
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)

    def forward(self, latent_BCTHW, timestep_B, text, guidance_B=None):
        guidance_B = torch.zeros_like(timestep_B) if guidance_B is None else guidance_B
        times_B2 = torch.stack([timestep_B * self.uses.time, guidance_B * self.uses.guidance], 1) / 1000
        state_BD = self.times(times_B2.to(latent_BCTHW.dtype)) + self.uses.text * self.read(text)
        hidden_BTHWD = self.uses.latent * self.latent(latent_BCTHW.movedim(1, -1)) + state_BD[:, None, None, None]
        return self.last(hidden_BTHWD).movedim(-1, 1)

    def read(self, text):
        real_BSD = self.text(text.tokens_BSD) * text.mask_BS[..., None]
        return real_BSD.sum(1) + self.pooled(text.pooled_BD)


class MixerKit(BackboneContract):
    pooled_width, guided = 5, True

    def make(self):
        return Mixer()


class TestMixer(MixerKit):
    pass


class TestUnguidedMixer(MixerKit):
    guided = False


class Unpooling(Mixer):
    def forward(self, latent_BCTHW, timestep_B, text):
        return super().forward(latent_BCTHW, timestep_B, text)

    def read(self, text):
        assert text.pooled_BD is None
        return (self.text(text.tokens_BSD) * text.mask_BS[..., None]).sum(1)


class TestUnpooling(BackboneContract):
    def make(self):
        return Unpooling()


class ReadsPadding(Mixer):
    def read(self, text):
        return self.text(text.tokens_BSD).sum(1)


class OtherShape(Mixer):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)[:, :2]


class IgnoresLatent(Mixer):
    uses = SimpleNamespace(text=1, time=1, guidance=1, latent=0)


class IgnoresTime(Mixer):
    uses = SimpleNamespace(text=1, time=0, guidance=1, latent=1)


class IgnoresGuidance(Mixer):
    uses = SimpleNamespace(text=1, time=1, guidance=0, latent=1)


class IgnoresText(Mixer):
    uses = SimpleNamespace(text=0, time=1, guidance=1, latent=1)


class BatchStatistics(Mixer):
    def forward(self, latent_BCTHW, timestep_B, text, guidance_B=None):
        return super().forward(latent_BCTHW - latent_BCTHW.mean(0), timestep_B, text, guidance_B)


class HiddenLayer(Mixer):
    def __init__(self):
        super().__init__()
        self.hidden = torch.randn(4)

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) * self.hidden[:, None, None, None]


class Float32Velocity(Mixer):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs).float()


@pytest.mark.parametrize(
    ("backbone", "broken", "message"),
    [
        (OtherShape, "every_input_matters", "velocity: (2, 2, 1, 4, 4), not (2, 4, 1, 4, 4)"),
        (ReadsPadding, "every_input_matters", "not close"),
        (IgnoresLatent, "every_input_matters", "latent_BCTHW changes nothing"),
        (IgnoresTime, "every_input_matters", "timestep_B changes nothing"),
        (IgnoresGuidance, "every_input_matters", "guidance_B changes nothing"),
        (IgnoresText, "every_input_matters", "text changes nothing"),
        (BatchStatistics, "samples_are_independent", "not close"),
        (HiddenLayer, "state_dict_round_trip", "not close"),
        (Float32Velocity, "bf16", "velocity_BCTHW is torch.float32"),
    ],
)
def test_a_broken_backbone_is_seen(broken_promises, backbone, broken, message):
    class Kit(MixerKit):
        def make(self):
            return backbone()

    assert message in broken_promises(Kit)[f"test_{broken}"]
