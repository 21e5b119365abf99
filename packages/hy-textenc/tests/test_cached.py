import pickle
from dataclasses import replace

import pytest
import torch
from hy_plugins import TextTokens
from hy_plugins.protocols import TextEncoder
from hy_textenc import CachedTextEncoder, TextEncoderError, TinyTextConfig, TinyTextEncoder
from hy_weights import TensorStore

SMALL = TinyTextConfig(vocab=64, width=16, layers=2, heads=2, max_tokens=16, pooled_width=12)
IDENTITY = {"weights": "abcd", "template": "describe {}", "skip": 2}
PROMPTS = ["a red circle", "", "猫!", "a red circle moves left"]


class Padded:
    """Gives `S` columns, as the released encoders do, with numbers under the padding too; counts what it encodes."""

    def __init__(self, identity=None, dtype=torch.float16, pooled=True):
        self.identity = dict(IDENTITY if identity is None else identity)
        self.dtype, self.pooled = dtype, pooled
        self.batches = []

    def encode(self, prompts, images=None):
        self.batches.append(list(prompts) if images is None else list(zip(prompts, map(str, images), strict=True)))
        lengths = torch.tensor([len(prompt.split()) for prompt in prompts])
        generator = torch.Generator().manual_seed(1)
        tokens_BSD = torch.randn(len(prompts), 9, 4, generator=generator).add(lengths[:, None, None]).to(self.dtype)
        pooled_BD = torch.randn(len(prompts), 3, generator=generator).to(self.dtype) if self.pooled else None
        return TextTokens(tokens_BSD, torch.arange(9) < lengths[:, None], pooled_BD)


@pytest.fixture
def store(tmp_path):
    return TensorStore(tmp_path / "store")


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return TinyTextEncoder(SMALL)


def test_it_is_a_text_encoder_itself(tiny, store):
    assert isinstance(CachedTextEncoder(tiny, store), TextEncoder)
    assert CachedTextEncoder(CachedTextEncoder(tiny, store), store).identity == tiny.identity


def check_equal(found, expected):
    assert torch.equal(found.tokens_BSD, expected.tokens_BSD)
    assert torch.equal(found.mask_BS, expected.mask_BS)
    assert torch.equal(found.pooled_BD, expected.pooled_BD)


def test_what_is_read_is_what_was_encoded(tiny, store):
    expected = tiny.encode(PROMPTS)
    for number in range(2):
        cached = CachedTextEncoder(tiny, store)
        text = cached.encode(PROMPTS)
        check_equal(text, expected)
        assert (cached.hits, cached.misses) == ((0, 4), (4, 0))[number]
        assert not text.tokens_BSD.requires_grad


def test_each_prompt_is_found_whatever_its_batch(store):
    encoder = Padded()
    cached = CachedTextEncoder(encoder, store)
    first = cached.encode(["a", "b c d", "e f"])
    second = cached.encode(["x y", "b c d", "a", "b c d", "x y"])
    assert encoder.batches == [["a", "b c d", "e f"], ["x y"]], "only what is missing, once each, in one batch"
    assert (cached.hits, cached.misses) == (3, 5)
    assert (store.counts.hits, store.counts.misses) == (2, 4), "each is looked up once"
    assert torch.equal(second.tokens_BSD[1], first.tokens_BSD[1])
    assert torch.equal(second.tokens_BSD[[1, 2]], first.tokens_BSD[[1, 0]])
    assert torch.equal(second.pooled_BD[[1, 2]], first.pooled_BD[[1, 0]])
    assert torch.equal(second.tokens_BSD[0], second.tokens_BSD[4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_real_tokens_are_kept_bit_for_bit_and_padding_comes_back_as_zeros(store, dtype):
    prompts = ["a b c d e", "a", "a b"]
    expected = Padded(dtype=dtype).encode(prompts)
    for _ in range(2):
        text = CachedTextEncoder(Padded(dtype=dtype), store).encode(prompts)
        assert text.tokens_BSD.shape == (3, 5, 4), "as long as the longest prompt"
        assert text.tokens_BSD.dtype == text.pooled_BD.dtype == dtype
        assert text.mask_BS.tolist() == expected.mask_BS[:, :5].tolist()
        assert torch.equal(text.tokens_BSD[text.mask_BS], expected.tokens_BSD[expected.mask_BS])
        assert (text.tokens_BSD[~text.mask_BS] == 0).all()
        assert torch.equal(text.pooled_BD, expected.pooled_BD)
    assert store.counts.bytes_written < 3 * 450 + (5 + 1 + 2) * 4 * 4 + 3 * 3 * 4, "padding is not stored"


def test_prompts_without_a_token_have_one_empty_column(store):
    for _ in range(2):
        text = CachedTextEncoder(Padded(pooled=False), store).encode(["", " "])
        assert text.tokens_BSD.shape == (2, 1, 4)
        assert not text.mask_BS.any()
        assert not text.tokens_BSD.any()
        assert text.pooled_BD is None


@pytest.mark.parametrize("change", [{"template": "describe: {}"}, {"weights": "abce"}, {"skip": 3}, {"more": 1}])
def test_another_encoder_finds_nothing_of_the_first(store, change):
    CachedTextEncoder(Padded(), store).encode(["a b"])
    other = CachedTextEncoder(Padded({**IDENTITY, **change}), store)
    other.encode(["a b"])
    assert (other.hits, other.misses) == (0, 1)


def test_prompts_that_look_alike_are_different(store):
    encoder = Padded()
    prompts = ["a cat", "a  cat", "A cat", "a cat ", "caf\u00e9", "cafe\u0301", "\ud800"]
    CachedTextEncoder(encoder, store).encode(prompts)
    assert encoder.batches == [prompts]


def test_images_count_by_their_pixels(store):
    encoder = Padded()
    cached = CachedTextEncoder(encoder, store)
    black, white = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.full((3, 2, 2), 255, dtype=torch.uint8)
    for image in (black, white, black.clone(), black.reshape(3, 1, 4), Picture(b"\0" * 16), Picture(b"\1" * 16)):
        cached.encode(["a b"], [image])
    cached.encode(["a b"])
    cached.encode(["a b", "a b"], [white, Picture(b"\1" * 16)])
    assert (cached.hits, cached.misses) == (3, 6)
    assert len(encoder.batches) == 6
    assert encoder.batches[0] == [("a b", str(black))]


class Picture:
    """What is used of a picture of Pillow."""

    size = (2, 2)

    def __init__(self, pixels):
        self.pixels = pixels

    def convert(self, mode):
        assert mode == "RGBA"
        return self

    def tobytes(self):
        return self.pixels


def test_an_image_that_is_none_or_is_missing_is_refused(store):
    cached = CachedTextEncoder(Padded(), store)
    with pytest.raises(TextEncoderError, match="2 prompts take as many images, not 1"):
        cached.encode(["a", "b"], [torch.zeros(1)])
    with pytest.raises(TextEncoderError, match="a tensor or a picture of Pillow, not bytes"):
        cached.encode(["a"], [b"png"])


def test_nothing_is_loaded_where_everything_is_found(store):
    CachedTextEncoder(Padded(), store).encode(["a", "b c"])

    def load():
        pytest.fail("the encoder is loaded")

    cached = CachedTextEncoder(load, store, identity=IDENTITY)
    assert cached.encode(["b c", "a"]).mask_BS.tolist() == [[True, True], [True, False]]
    assert cached.hits == 2


def test_an_encoder_is_loaded_once_and_at_the_first_miss(store):
    loaded = []

    def load():
        loaded.append(Padded())
        return loaded[-1]

    cached = CachedTextEncoder(load, store, identity=IDENTITY)
    assert cached.keys(["a"]) == CachedTextEncoder(Padded(), store).keys(["a"])
    assert loaded == []
    cached.encode(["a"])
    cached.encode(["b"])
    assert len(loaded) == 1
    asked = CachedTextEncoder(load, store)
    assert asked.identity == IDENTITY
    asked.encode(["a"])
    assert asked.hits == 1
    assert len(loaded) == 2


def test_another_encoder_than_was_announced_is_refused(store):
    cached = CachedTextEncoder(lambda: Padded({**IDENTITY, "skip": 3}), store, identity=IDENTITY)
    with pytest.raises(TextEncoderError, match=r"not the one that was announced: they differ in skip"):
        cached.encode(["a"])
    assert store.counts.stored == 0


def test_an_identity_may_be_asked_for_late_and_once(store):
    asked = []

    def identity():
        asked.append(1)
        return IDENTITY

    cached = CachedTextEncoder(Padded(), store, identity=identity)
    assert asked == []
    cached.encode(["a"])
    cached.encode(["b"])
    assert cached.identity == IDENTITY
    assert asked == [1]
    with pytest.raises(TextEncoderError, match="they differ in skip"):
        CachedTextEncoder(Padded({**IDENTITY, "skip": 3}), store, identity=identity).encode(["c"])


def test_what_is_missing_can_be_refused(store):
    CachedTextEncoder(Padded(), store).encode(["a", "b c"])
    encoder = Padded()
    cached = CachedTextEncoder(encoder, store, missing="error")
    assert cached.encode(["b c", "a"]).mask_BS.shape == (2, 2)
    told = r"store: the states of 2 prompts are not there, such as 'd', 'e'; `hyvideo encode --config RECIPE` makes"
    with pytest.raises(TextEncoderError, match=told):
        cached.encode(["a", "d", "e", "d"])
    assert encoder.batches == []
    assert store.counts.stored == 2
    with pytest.raises(TextEncoderError, match="missing is 'skip'; it can be encode or error"):
        CachedTextEncoder(encoder, store, missing="skip")


def test_what_is_missing_can_be_refused_before_it_is_asked_for(store):
    CachedTextEncoder(Padded(), store).encode(["a", "b c"])
    encoder = Padded()
    cached = CachedTextEncoder(encoder, store, missing="error")
    cached.require(["a", "b c", "a"])
    cached.require([])
    long = "d" * 100
    with pytest.raises(
        TextEncoderError, match=rf"the states of 4 prompts .* such as '{'d' * 60}…', 'e', 'f'; `hyvideo"
    ):
        cached.require(text for text in ("a", long, "e", long, "f", "g"))
    assert (encoder.batches, cached.misses) == ([], 0)
    CachedTextEncoder(encoder, store).require(["h"])  # it would be encoded


def test_other_processes_read_without_asking_what_the_encoder_is(store):
    asked = []

    def identity():
        asked.append(1)
        return IDENTITY

    expected = CachedTextEncoder(Padded(), store).encode(["a", "b c"])
    cached = CachedTextEncoder(lambda: Padded(), store, identity=identity, device="meta", missing="error")
    reader = pickle.loads(pickle.dumps(cached.reader()))
    assert asked == [1]
    assert torch.equal(reader.encode(["a", "b c"]).tokens_BSD, expected.tokens_BSD), "on the CPU"
    with pytest.raises(TextEncoderError, match="the states of 1 prompts are not there, such as 'x'"):
        reader.encode(["x"])
    with pytest.raises(TextEncoderError, match="states are read here, and no encoder is loaded"):
        reader.load()
    assert asked == [1]
    assert CachedTextEncoder(Padded, store, identity=identity).reader() is None


@pytest.mark.parametrize("identity", [None, "abcd"])
def test_an_encoder_that_does_not_say_what_it_is_is_refused(store, identity):
    encoder = Padded()
    encoder.identity = identity
    with pytest.raises(TextEncoderError, match="Padded can't be cached: it has no `identity`"):
        CachedTextEncoder(encoder, store).encode(["a"])


def test_the_tiny_encoder_is_another_after_a_step_of_training(tiny, store):
    cached = CachedTextEncoder(tiny, store)
    before = cached.encode(["a red ball"])
    with torch.no_grad():
        tiny.norm.bias[0] += 1
    after = cached.encode(["a red ball"])
    assert cached.misses == 2
    assert not torch.equal(before.tokens_BSD, after.tokens_BSD)


def test_the_tiny_encoders_identity_is_its_config_and_weights(tiny):
    torch.manual_seed(0)
    assert TinyTextEncoder(SMALL).identity == tiny.identity
    assert TinyTextEncoder(SMALL).identity != tiny.identity
    torch.manual_seed(0)
    assert TinyTextEncoder(replace(SMALL, heads=4)).identity != tiny.identity, "heads change no weight"
    assert tiny.bfloat16().identity["weights"] != TinyTextEncoder(SMALL).identity["weights"]


def test_a_damaged_entry_is_encoded_again(tiny, tmp_path):
    store = TensorStore(tmp_path / "store", report=lambda text: None)
    expected = CachedTextEncoder(tiny, store).encode(PROMPTS)
    for file in (tmp_path / "store").glob("??/*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    cached = CachedTextEncoder(tiny, store)
    check_equal(cached.encode(PROMPTS), expected)
    assert cached.misses == 4
    check_equal(CachedTextEncoder(tiny, store).encode(PROMPTS), expected)
    assert store.counts.damaged == 4


def test_without_a_disk_it_encodes_all_the_same(tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    reports = []
    cached = CachedTextEncoder(tiny, TensorStore(tmp_path / "file" / "store", report=reports.append))
    check_equal(cached.encode(PROMPTS), tiny.encode(PROMPTS))
    check_equal(cached.encode(PROMPTS), tiny.encode(PROMPTS))
    assert cached.misses == 8
    assert len(reports) == 1


def test_padding_on_the_left_is_refused(store):
    class Left(Padded):
        def encode(self, prompts, images=None):
            text = super().encode(prompts)
            return TextTokens(text.tokens_BSD, text.mask_BS.flip(1), text.pooled_BD)

    with pytest.raises(TextEncoderError, match="padded on the right"):
        CachedTextEncoder(Left(), store).encode(["a b"])


def test_states_that_are_not_finite_are_not_kept(store):
    class Overflowing(Padded):
        def encode(self, prompts, images=None):
            text = super().encode(prompts)
            return TextTokens(text.tokens_BSD, text.mask_BS, text.pooled_BD / 0)

    with pytest.raises(TextEncoderError, match="gives NaN or infinity for 'a b'; load it in a wider dtype"):
        CachedTextEncoder(Overflowing(), store).encode(["a b"])
    assert store.counts.stored == 0


@pytest.mark.parametrize("prompts", ["a red circle", [], ()])
def test_what_is_not_a_list_of_prompts_is_refused(tiny, store, prompts):
    with pytest.raises(TextEncoderError, match="a list of at least one prompt"):
        CachedTextEncoder(tiny, store).encode(prompts)
