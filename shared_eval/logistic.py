"""Many logistic regressions on the same features at once: all folds and penalties of a cross-validation.

One by one they would each read the whole feature matrix in every iteration; together they are products of
matrices.
Each is what scikit-learn's LogisticRegression fits: L2 penalty 1/C, intercept unpenalised, two classes by one
logistic function, more by a softmax. Tests compare both.

Shapes: N samples · D features, the last of them 1 for the intercept · K columns of a problem (1 for two
classes, else the classes) · P problems.
"""

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of the mean loss's gradient, largest entry; scikit-learn's default is 1e-4
DAMPING = 1e-3  # of the intercepts, as a share of their curvature
NEWTON_STEPS = 50
CONJUGATE_STEPS = 50
HALVINGS = 10
COLUMNS_AT_ONCE = 512  # columns P K of one solution, which bounds the memory to a few [N, 512]


def fit_logistic(
    features: Tensor, labels: Tensor, classes: int, of_training: Tensor, penalties: Tensor
) -> Tensor:
    """Fit one regression for every row of ``of_training``: coefficients [P, D + 1, K], the intercept last.

    Args:
        features: [N, D] float.
        labels: [N] int64, below ``classes``.
        of_training: [P, N] bool, the samples that a problem is fitted to.
        penalties: [P], C of each problem: the inverse of its penalty's weight.
    """
    features = with_ones(features)
    gram = features.T @ features
    columns = 1 if classes == 2 else classes
    chunk = max(1, COLUMNS_AT_ONCE // columns)
    return torch.cat(
        [
            _Problems(features, gram, labels, classes, masks, c).solve()
            for masks, c in zip(of_training.split(chunk), penalties.split(chunk), strict=True)
        ]
    )


def predict_logistic(features: Tensor, coefficients: Tensor) -> Tensor:
    """The classes that each problem's coefficients predict: [N, D], [P, D + 1, K] -> [P, N]."""
    scores = with_ones(features) @ coefficients  # (P, N, K)
    return (scores.squeeze(2) > 0).long() if scores.shape[2] == 1 else scores.argmax(dim=2)


def with_ones(features: Tensor) -> Tensor:
    """A last column of ones, for the intercept: [N, D] -> [N, D + 1]."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


class _Problems:
    """Newton's method on P problems side by side, each step found by preconditioned conjugate gradients."""

    def __init__(
        self, features: Tensor, gram: Tensor, labels: Tensor, classes: int, masks: Tensor, penalties: Tensor
    ) -> None:
        self.features, self.gram = features, gram
        self.binary = classes == 2
        self.masks = masks.T.to(features.dtype).unsqueeze(2)  # (N, P, 1)
        self.counts = masks.sum(dim=1).to(features.dtype)  # (P,)
        targets = labels.unsqueeze(1) if self.binary else torch.nn.functional.one_hot(labels, classes)
        self.targets = targets.to(features.dtype).unsqueeze(1)  # (N, 1, K)
        ridge = (1 / penalties).to(features.dtype).repeat(features.shape[1], 1)
        ridge[-1] = 0  # the intercept is free
        self.ridge = ridge.unsqueeze(2)  # (D, P, 1)
        self.penalties = penalties

    def solve(self) -> Tensor:
        problems, columns = len(self.counts), self.targets.shape[2]
        weights = self.features.new_zeros(self.features.shape[1], problems, columns)
        scores = self._times(weights)
        loss = self._loss(weights, scores)
        for _ in range(NEWTON_STEPS):
            probabilities = scores.sigmoid() if self.binary else scores.softmax(dim=2)
            gradient = self._back(self.masks * (probabilities - self.targets)) + self.ridge * weights
            largest = gradient.abs().amax(dim=(0, 2)) / self.counts
            if (largest <= TOLERANCE).all():
                break
            step = self._newton_step(gradient, probabilities)
            weights, scores, loss, moved = self._descend(weights, scores, loss, step)
            if not moved:
                break  # as far as the precision goes
        return weights.transpose(0, 1)

    def _times(self, weights: Tensor) -> Tensor:
        """[D, P, K] -> [N, P, K]."""
        return (self.features @ weights.flatten(1)).view(len(self.features), *weights.shape[1:])

    def _back(self, residuals: Tensor) -> Tensor:
        """[N, P, K] -> [D, P, K]."""
        return (self.features.T @ residuals.flatten(1)).view(-1, *residuals.shape[1:])

    def _loss(self, weights: Tensor, scores: Tensor) -> Tensor:
        """[P]."""
        if self.binary:
            losses = torch.nn.functional.softplus(scores) - self.targets * scores
        else:
            losses = scores.logsumexp(dim=2, keepdim=True) - (self.targets * scores).sum(dim=2, keepdim=True)
        return (self.masks * losses).sum(dim=(0, 2)) + (self.ridge * weights.square()).sum(dim=(0, 2)) / 2

    def _newton_step(self, gradient: Tensor, probabilities: Tensor) -> Tensor:
        """Solve H step = -gradient, to a precision that grows as the gradient shrinks: [D, P, K]."""
        spread = (self.masks * probabilities * (1 - probabilities)).sum(dim=(0, 2)) / probabilities.shape[2]
        # A softmax does not change when all its intercepts do: without damping H has no inverse there.
        damped = self.ridge.clone()
        damped[-1] = DAMPING * spread.unsqueeze(1)

        def curvature(direction: Tensor) -> Tensor:
            change = self._times(direction)
            if self.binary:
                change = probabilities * (1 - probabilities) * change
            else:
                change = probabilities * (change - (probabilities * change).sum(dim=2, keepdim=True))
            return self._back(self.masks * change) + damped * direction

        precondition = self._preconditioner(spread / len(self.features))
        step = torch.zeros_like(gradient)
        residual = -gradient
        size = residual.square().sum(dim=(0, 2))
        precision = 0.5 * (gradient.abs().amax(dim=(0, 2)) / self.counts).sqrt()
        enough = size * precision.clamp(0.01, 0.1).square()
        ready = precondition(residual)
        direction, product = ready, (residual * ready).sum(dim=(0, 2))
        for _ in range(CONJUGATE_STEPS):
            going = size > enough
            if not going.any():
                break
            bent = curvature(direction)
            length = torch.where(going, product / (direction * bent).sum(dim=(0, 2)), 0.0).unsqueeze(1)
            step = step + length * direction
            residual = residual - length * bent
            size = torch.where(going, residual.square().sum(dim=(0, 2)), size)
            ready = precondition(residual)
            new_product = (residual * ready).sum(dim=(0, 2))
            ratio = torch.where(going, new_product / product, 0.0).unsqueeze(1)
            direction, product = ready + ratio * direction, new_product
        return step

    def _preconditioner(self, curvatures: Tensor) -> Callable[[Tensor], Tensor]:
        """The inverse of c X^T X + 1/C, with the mean curvature c of the problems that share a penalty C."""
        factors = {}
        for penalty in self.penalties.unique().tolist():
            of_penalty = self.penalties == penalty
            matrix = self.gram * curvatures[of_penalty].mean()
            matrix.diagonal()[:-1] += 1 / penalty
            matrix.diagonal()[-1] *= 1 + DAMPING
            factors[penalty] = of_penalty, torch.linalg.cholesky(matrix)

        def precondition(residual: Tensor) -> Tensor:
            ready = torch.empty_like(residual)
            for of_penalty, factor in factors.values():
                part = residual[:, of_penalty]
                ready[:, of_penalty] = torch.cholesky_solve(part.flatten(1), factor).view_as(part)
            return ready

        return precondition

    def _descend(
        self, weights: Tensor, scores: Tensor, loss: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Take the step, halved for the problems whose loss it would raise; whether any moved at all."""
        change = self._times(step)
        length = torch.ones_like(loss)
        for _ in range(HALVINGS):
            moved = weights + length.unsqueeze(1) * step
            moved_scores = scores + length.unsqueeze(1) * change
            moved_loss = self._loss(moved, moved_scores)
            # Near the minimum a loss changes by less than its rounding.
            worse = ~(moved_loss <= loss * (1 + 8 * torch.finfo(loss.dtype).eps)) & (length > 0)
            if not worse.any():
                break
            length = torch.where(worse, length / 2, length)
        length = torch.where(worse, 0.0, length)
        moved = weights + length.unsqueeze(1) * step
        moved_scores = scores + length.unsqueeze(1) * change
        return moved, moved_scores, self._loss(moved, moved_scores), bool((length > 0).any())
