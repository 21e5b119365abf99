"""From images to video."""

import torch
from hy_vae3d import VAE3D, VAE3DConfig
from hy_vae3d.inflate import inflate

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4, scaling_factor=1.0)


def test_images_come_out_as_before_and_a_still_clip_as_its_image():
    torch.manual_seed(0)
    vae = VAE3D(SMALL).eval()
    image = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    still = image.expand(-1, -1, 9, -1, -1)
    with torch.no_grad():
        before = vae.decode(vae.encode(image).mode())
        inflate(vae)
        after = vae.decode(vae.encode(image).mode())
        clip = vae.decode(vae.encode(still).mode())
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3)
    torch.testing.assert_close(clip, before.expand_as(clip), rtol=0, atol=1e-3)


def test_only_the_newest_frame_is_seen_at_first_and_the_others_can_be_learned():
    torch.manual_seed(0)
    vae = VAE3D(SMALL)
    inflate(vae)
    convolution = vae.encoder.conv_in
    clip = torch.rand(1, 3, 5, 16, 16)
    changed = clip.clone()
    changed[:, :, 0] = 0
    assert torch.equal(convolution(clip)[:, :, 1:], convolution(changed)[:, :, 1:])
    convolution(clip).square().sum().backward()
    assert convolution.conv.weight.grad[:, :, 0].abs().max() > 0
