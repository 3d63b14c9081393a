"""ResNets for small images: shapes, stem, norms, and equality with torchvision's."""

import pytest
import torch
import torchvision

from image.encoder import ARCHITECTURES, SimCLR, group_norm, make_encoder, make_model


@pytest.mark.parametrize(
    ("arch", "width", "dim"),
    [
        ("resnet10", 64, 512),
        ("resnet18", 64, 512),
        ("resnet34", 8, 64),
        ("resnet50", 64, 2048),
        ("resnet50", 8, 256),
    ],
)
def test_shapes(arch, width, dim):
    encoder = make_encoder(arch, width)
    assert encoder.dim == dim
    assert encoder.conv1.weight.shape == (width, 3, 3, 3)
    representation, projection = SimCLR(encoder)(torch.randn(2, 3, 16, 16))
    assert representation.shape == (2, dim)
    assert projection.shape == (2, 128)
    torch.testing.assert_close(projection.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_parameters_are_torchvision_s_except_stem_and_classifier(arch):
    theirs = getattr(torchvision.models, arch)().state_dict()
    ours = make_encoder(arch).state_dict()
    shapes = {name: value.shape for name, value in theirs.items() if not name.startswith(("conv1.", "fc."))}
    assert {name: value.shape for name, value in ours.items() if name != "conv1.weight"} == shapes


def test_values_equal_torchvision_s_with_the_stem_replaced():
    theirs = torchvision.models.resnet18()
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = theirs.fc = torch.nn.Identity()
    ours = make_encoder("resnet18")
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_values_with_imagenets_stem_equal_torchvision_s():
    theirs = torchvision.models.resnet18()
    theirs.fc = torch.nn.Identity()
    ours = make_encoder("resnet18", stem="imagenet")
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 80, 80)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_imagenets_stem_has_the_encoders_width():
    encoder = make_encoder("resnet10", width=8, stem="imagenet")
    assert encoder.conv1.weight.shape == (8, 3, 7, 7)
    assert encoder.layer1(encoder.maxpool(encoder.conv1(torch.randn(2, 3, 80, 80)))).shape == (2, 8, 20, 20)


def test_head_is_the_paper_s():
    head = SimCLR(make_encoder("resnet50")).head
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert (head[0].in_features, head[0].out_features, head[3].out_features) == (2048, 512, 128)
    assert head[0].bias is None
    assert head[3].bias is not None
    assert set(ARCHITECTURES) >= {"resnet18", "resnet34", "resnet50"}


@pytest.mark.parametrize(
    ("channels", "groups"), [(512, 32), (64, 4), (16, 1), (4, 1), (24, 1), (50, 1), (100, 2)]
)
def test_groups_have_sixteen_channels_or_more(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("arch", ["resnet10", "resnet50"])
def test_group_norm_treats_images_one_by_one(arch):
    model = make_model(arch, 8, "group")
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
    images = torch.randn(4, 3, 16, 16)
    together, alone = model(images)[1], torch.cat([model(image[None])[1] for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3
    batch = make_model(arch, 8)
    assert (batch(images)[1] - batch(images[:2].repeat(2, 1, 1, 1))[1])[0].abs().max() > 1e-3
