"""Numbers on a command line that are refused: too large, too small, not finite."""

import pytest

import graph.config
import image.config
import sentence.config
from core.io.errors import InputError
from core.training.cli import flag, parse_config
from core.training.config import MAX_SEED
from core.training.settings import MAX_COUNT, parse_numbers

TRAINERS = {
    "graph": (graph.config.GraphConfig, graph.config.defaults_for),
    "image": (image.config.ImageConfig, image.config.defaults_for),
    "sentence": (sentence.config.SentenceConfig, sentence.config.defaults_for),
}


def parsed(modality, *flags):
    return parse_config(*TRAINERS[modality], flags, f"python -m {modality}.train")


@pytest.mark.parametrize(
    ("modality", "name", "value", "maximum"),
    [
        *[(modality, "batch_size", "1" + 40 * "0", MAX_COUNT) for modality in TRAINERS],
        *[(modality, "seed", str(MAX_SEED + 1), MAX_SEED) for modality in TRAINERS],
        *[("sentence", name, str(10**30), MAX_COUNT) for name in ("embedding_dim", "vocab_size")],
        *[("sentence", name, str(10**30), MAX_COUNT) for name in ("longest", "hidden")],
        ("graph", "hidden", str(MAX_COUNT + 1), MAX_COUNT),
        ("graph", "layers", "100000000", 1000),
        ("sentence", "window", str(10**30), 2**20),
        ("graph", "epochs", 400 * "9", MAX_COUNT),
        ("image", "width", "10000000000", MAX_COUNT),
        ("image", "temperature", "inf", "3.4e+38"),
        ("image", "lr", "1e+300", "3.4e+38"),
        ("graph", "checkpoint_seconds", "inf", "3.4e+38"),
    ],
)
def test_number_above_its_maximum_is_refused(modality, name, value, maximum):
    with pytest.raises(InputError) as error:
        parsed(modality, flag(name), value)
    assert str(error.value) == f"`{name}` is {value:.50}; it must be at most {maximum}"


@pytest.mark.parametrize("value", ["nan", "-inf", "-1"])
@pytest.mark.parametrize("name", ["lr", "beta", "checkpoint_seconds"])
def test_negative_or_non_finite_number_is_refused(name, value):
    with pytest.raises(InputError, match=f"`{name}` is {value}"):
        parsed("graph", flag(name), value)


def test_maximum_itself_is_accepted():
    config = parsed("graph", "--seed", str(MAX_SEED), "--hidden", str(MAX_COUNT), "--lr", "3e38")
    assert (config.seed, config.hidden, config.lr) == (MAX_SEED, MAX_COUNT, 3e38)


@pytest.mark.parametrize(("text", "numbers"), [("0,3-5,9", [0, 3, 4, 5, 9]), ("7-7", [7]), ("-1", [-1])])
def test_list_of_numbers_may_hold_ranges(text, numbers):
    assert parse_numbers(text, "seeds", int) == numbers


@pytest.mark.parametrize("text", ["0,5-3", "5-3,0", "5-3"])
def test_range_that_counts_down_is_named(text):
    with pytest.raises(InputError, match="`seeds` has the range 5-3, which counts down; write 3-5"):
        parse_numbers(text, "seeds", int)
