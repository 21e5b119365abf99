import torch
from hy_weights.lora.factors import Factors


def test_the_difference_is_the_scaled_product(draw_factors):
    factors = draw_factors((7, 5), rank=3, alpha=6.0)
    assert (factors.rank, factors.scale) == (3, 2.0)
    torch.testing.assert_close(factors.delta(), 2.0 * (factors.up @ factors.down))


def test_the_difference_of_a_convolution_has_its_shape(draw_factors):
    factors = draw_factors((7, 2, 1, 2, 2), rank=3, alpha=1.5)
    x = torch.randn(1, 2, 3, 4, 4)
    through_the_rank = torch.nn.functional.conv3d(torch.nn.functional.conv3d(x, factors.down), factors.up)
    torch.testing.assert_close(torch.nn.functional.conv3d(x, factors.delta()), 0.5 * through_the_rank)


def test_the_difference_is_computed_in_float32():
    half = Factors(torch.full((2, 3), 0.1).bfloat16(), torch.full((4, 2), 0.1).bfloat16(), 2.0)
    assert half.delta().dtype == torch.float32
    torch.testing.assert_close(half.delta(), half.up.float() @ half.down.float(), atol=0, rtol=0)
