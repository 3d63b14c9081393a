"""SimCLR with hard negatives in plain PyTorch, on scikit-learn's digits: 20 seconds on a CPU.

    pip install . scikit-learn
    python examples/simclr_minimal.py --beta 1.0

Prints how well 50 labelled images classify the others, before and after training without labels. On this
small set hard negatives do not help: compare with ``--beta 0``.
"""

import argparse

import torch
from hard_negatives import HardNegativeLoss
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn


def views(images: Tensor) -> Tensor:
    """The images shifted by up to a pixel, brighter or darker, with noise: [B, 1, 8, 8] -> [B, 1, 8, 8]."""
    batch = len(images)
    theta = torch.eye(2, 3).repeat(batch, 1, 1)
    theta[:, :, :2] += 0.15 * torch.randn(batch, 2, 2)  # a small rotation, scale and shear
    theta[:, :, 2] += 0.25 * (2 * torch.rand(batch, 2) - 1)  # the image is 2 wide
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images, grid, align_corners=False)
    return moved * (0.6 + 0.8 * torch.rand(batch, 1, 1, 1)) + 0.1 * torch.randn_like(images)


def accuracy(encoder: nn.Module, images: Tensor, labels: Tensor, labelled: int = 50) -> float:
    """Accuracy of the nearest neighbour by cosine, among the first images, whose labels are known."""
    encoder.eval()
    with torch.no_grad():
        representations = encoder(images)
    encoder.train()
    known, rest = slice(None, labelled), slice(labelled, None)
    neighbours = KNeighborsClassifier(1, metric="cosine").fit(representations[known], labels[known])
    return neighbours.score(representations[rest], labels[rest])


def main(beta: float, tau_plus: float, epochs: int) -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    order = torch.randperm(len(images))
    images, labels = images[order], torch.tensor(digits.target)[order]

    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 128),
    )  # fmt: skip
    head = nn.Sequential(nn.ReLU(), nn.Linear(128, 64))
    objective = HardNegativeLoss(beta=beta, tau_plus=tau_plus, temperature=0.5)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-3)
    print(f"before training {accuracy(encoder, images, labels):.3f}")
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(256):
            batch = images[chosen]
            loss = objective(head(encoder(views(batch))), head(encoder(views(batch))))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"after {epochs} epochs {accuracy(encoder, images, labels):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beta", type=float, default=1.0, help="hardness; 0 is the debiased loss")
    parser.add_argument("--tau-plus", type=float, default=0.1, help="share of false negatives")
    parser.add_argument("--epochs", type=int, default=30)
    main(**vars(parser.parse_args()))
