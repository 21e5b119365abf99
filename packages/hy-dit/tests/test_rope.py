import torch
from hy_dit.rope import extend, rotary_table, rotate

CPU = torch.device("cpu")


def test_the_table_is_the_released_one(released):
    cos_LK, sin_LK = released("guidance", "video").rope
    rotation_LP = rotary_table((5, 4, 6), (8, 8, 8), 256.0, CPU)
    torch.testing.assert_close(rotation_LP.real.repeat_interleave(2, -1), cos_LK, atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation_LP.imag.repeat_interleave(2, -1), sin_LK, atol=1e-6, rtol=0)


def test_adjacent_channels_turn_together():
    x_BLNK = torch.randn(2, 6, 3, 4)
    rotation_LP = rotary_table((1, 2, 3), (0, 2, 2), 256.0, CPU)
    turned_BLNK = rotate(x_BLNK, rotation_LP)
    row, column = 1.0, 2.0  # of the last token
    for first, angle in ((0, row), (2, column)):
        cos, sin = torch.tensor(angle).cos(), torch.tensor(angle).sin()
        a, b = x_BLNK[:, 5, :, first], x_BLNK[:, 5, :, first + 1]
        torch.testing.assert_close(turned_BLNK[:, 5, :, first], a * cos - b * sin)
        torch.testing.assert_close(turned_BLNK[:, 5, :, first + 1], b * cos + a * sin)


def test_wavelengths_grow_with_the_channel():
    angles_P = rotary_table((3, 1, 1), (8, 0, 0), 256.0, CPU)[1].angle()
    torch.testing.assert_close(angles_P, torch.tensor([1.0, 1 / 4, 1 / 16, 1 / 64]))


def test_text_rows_change_nothing_at_all():
    x_BLNK = torch.randn(2, 7, 3, 4)
    rotation_LP = extend(rotary_table((1, 2, 2), (0, 2, 2), 256.0, CPU), 3)
    turned_BLNK = rotate(x_BLNK, rotation_LP)
    assert torch.equal(turned_BLNK[:, 4:], x_BLNK[:, 4:])
    assert not torch.equal(turned_BLNK[:, 1:4], x_BLNK[:, 1:4])


def test_the_dtype_is_kept_and_the_angle_is_not_rounded():
    x_BLNK = torch.randn(1, 200, 1, 4)
    rotation_LP = rotary_table((200, 1, 1), (4, 0, 0), 256.0, CPU)
    turned_BLNK = rotate(x_BLNK.bfloat16(), rotation_LP)
    assert turned_BLNK.dtype == torch.bfloat16
    assert torch.equal(turned_BLNK, rotate(x_BLNK.bfloat16().float(), rotation_LP).bfloat16())


def test_a_table_is_made_once_and_serves_training_after_sampling():
    with torch.inference_mode():
        born_LP = rotary_table((3, 5, 7), (0, 2, 2), 256.0, CPU)
    assert rotary_table((3, 5, 7), (0, 2, 2), 256.0, CPU) is born_LP
    x_BLNK = torch.randn(1, 105, 1, 4, requires_grad=True)
    rotate(x_BLNK, born_LP).sum().backward()
    assert x_BLNK.grad is not None
