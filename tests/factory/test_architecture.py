"""What a run's parameters mean beyond their shapes is compared before they are used elsewhere."""

import pytest

from fmjax.config import default_config
from fmjax.factory.architecture import architecture, architecture_changes
from fmjax.factory.model import make_model


def of(**model):
    config = default_config()
    config.model.update(model)
    return architecture(config, make_model(config, None, portable=True))


SIZES = {"width": 128, "depth": 2, "channel_mult": "1,2,2,2"}


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        ({"name": "unet", **SIZES, "heads": 4}, []),  # heads of 64, too
        ({"heads": 8}, ["model.heads=of 64 channels (here: of 32 channels)"]),
        ({"time_scale": 1.0}, ["model.time_scale=1000.0 (here: 1.0)"]),
    ],
)
def test_heads_of_a_unet_are_compared_by_their_sizes(other, changed):
    name = "UNet-CIFAR10/torchcfm"
    assert architecture_changes(of(name=name), of(**{"name": name, **other})) == changed


def test_a_rotation_that_no_shape_tells_is_compared():
    changed = ["model.rope=False (here: True)"]
    assert architecture_changes(of(name="DiT-S/2"), of(name="DiT-S/2", rope=True)) == changed
    light = of(name="LightningDiT-XL/1")
    assert architecture_changes(light, of(name="LightningDiT-XL/1", rope=True)) == []
