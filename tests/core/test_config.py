"""Numbers of a command line that nothing can be made of."""

import pytest

import graph.train
import image.train
import sentence.train
from core.io.errors import InputError
from core.training.cli import parse_config
from core.training.config import MAX_COUNT, MAX_SEED

TRAINERS = {
    "graph": (graph.train.GraphConfig, graph.train.recipe),
    "image": (image.train.ImageConfig, image.train.recipe),
    "sentence": (sentence.train.SentenceConfig, sentence.train.recipe),
}


def parsed(modality, *flags):
    return parse_config(*TRAINERS[modality], flags, f"python -m {modality}.train")


@pytest.mark.parametrize(
    ("modality", "flag", "value", "most"),
    [
        *[(modality, "batch-size", "1" + 40 * "0", MAX_COUNT) for modality in TRAINERS],
        *[(modality, "seed", str(MAX_SEED + 1), MAX_SEED) for modality in TRAINERS],
        *[("sentence", name, str(10**30), MAX_COUNT) for name in ("embedding-dim", "vocab-size")],
        *[("sentence", name, str(10**30), MAX_COUNT) for name in ("longest", "window", "hidden")],
        ("graph", "hidden", str(MAX_COUNT + 1), MAX_COUNT),
        ("graph", "layers", "100000000", 1000),
        ("image", "width", "1000000000", MAX_COUNT),
        ("image", "temperature", "inf", "3.4e+38"),
        ("image", "lr", "1e+300", "3.4e+38"),
        ("graph", "checkpoint-seconds", "inf", "3.4e+38"),
    ],
)
def test_too_large_a_number(modality, flag, value, most):
    with pytest.raises(InputError) as error:
        parsed(modality, f"--{flag}", value)
    assert str(error.value) == f"--{flag} is {value}; it must be at most {most}"


@pytest.mark.parametrize("value", ["nan", "-inf", "-1"])
@pytest.mark.parametrize("flag", ["lr", "beta", "checkpoint-seconds"])
def test_no_number_at_all_or_too_small_a_one(flag, value):
    with pytest.raises(InputError, match=f"{flag}`? is {value}"):
        parsed("graph", f"--{flag}", value)


def test_the_largest_that_are_taken():
    config = parsed("graph", "--seed", str(MAX_SEED), "--hidden", str(MAX_COUNT), "--lr", "3e38")
    assert (config.seed, config.hidden, config.lr) == (MAX_SEED, MAX_COUNT, 3e38)
