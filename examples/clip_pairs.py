"""Two towers with hard negatives: match the upper and the lower half of scikit-learn's digits.

    pip install . scikit-learn
    python examples/clip_pairs.py --beta 0.5

Both halves stand for any pair, such as an image and its caption. Prints how often the right lower half is
among the five nearest of 100, before and after training. The temperature is learned, as in CLIP. On this
small set hard negatives do not help: compare with ``--beta 0``.
"""

import argparse

import torch
from hard_negatives import clip_loss
from sklearn.datasets import load_digits
from torch import Tensor, nn


def recall(upper: Tensor, lower: Tensor, k: int = 5) -> float:
    """Share of rows whose partner is among the ``k`` nearest: [N, D], [N, D] -> number."""
    scores = nn.functional.normalize(upper, dim=1) @ nn.functional.normalize(lower, dim=1).T
    nearest = scores.topk(k, dim=1).indices
    return (nearest == torch.arange(len(upper)).unsqueeze(1)).any(dim=1).float().mean().item()


def main(beta: float, epochs: int) -> None:
    torch.manual_seed(0)
    images = torch.tensor(load_digits().images, dtype=torch.float32) / 16
    images = images[torch.randperm(len(images))]
    halves = images[:, :4].flatten(1), images[:, 4:].flatten(1)  # [N, 32] each
    test, train = ([half[:100] for half in halves], [half[100:] for half in halves])

    towers = [
        nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 32))
        for _ in range(2)
    ]
    log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
    parameters = [log_scale, *towers[0].parameters(), *towers[1].parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def report(when: str) -> None:
        with torch.no_grad():
            print(f"{when} {recall(*(tower(half) for tower, half in zip(towers, test, strict=True))):.3f}")

    report("before training")
    for _ in range(epochs):
        for chosen in torch.randperm(len(train[0])).split(256):
            upper, lower = (tower(half[chosen]) for tower, half in zip(towers, train, strict=True))
            loss = clip_loss(upper, lower, beta=beta, temperature=1 / log_scale.clamp(max=4.6).exp())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    report(f"after {epochs} epochs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beta", type=float, default=0.5, help="hardness; 0 is CLIP's loss")
    parser.add_argument("--epochs", type=int, default=60)
    main(**vars(parser.parse_args()))
