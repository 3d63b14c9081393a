"""The commands of images with small settings."""

from image.evaluate import main as evaluate_main
from image.train import main as train_main
from tests.runs import failure_of, printed_scores, result_of

FAST = ["--epochs", "3", "--batch-size", "16", "--arch", "resnet10", "--width", "4", "--view-size", "16"]
FAST += ["--image-size", "16", "--device", "cpu", "--precision", "float32"]
VIEWS_BEFORE = 2  # made before the first step, to score the untrained encoder


def train(tiny_folder, folder, *flags):
    train_main([*FAST, "--dataset", f"folder:{tiny_folder}", "--output-dir", str(folder), *flags])
    return result_of(folder)


def failure(capsys, *flags):
    """The one line that a command with bad input prints."""
    capsys.readouterr()  # of commands before
    [line] = failure_of(train_main, capsys, flags)
    return line


def evaluated(capsys, folder, *flags):
    """The scores that the evaluation command prints for a run, by name, as text."""
    return printed_scores(evaluate_main, capsys, [folder, "--device", "cpu", *flags])
