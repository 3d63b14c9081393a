"""Many logistic regressions on the same features at once: all folds and penalties of a cross-validation.

One by one, each would read the whole feature matrix in every iteration; together they are matrix products.
Each is what scikit-learn's LogisticRegression fits: L2 penalty 1/C, no penalty on the intercept, a logistic
function for two classes, a softmax for more. Tests compare the two.

Method: Newton's, each step solved by preconditioned conjugate gradients (Nocedal and Wright, Numerical
Optimization, 2nd ed., algorithms 5.3 and 7.1).

Shapes: N samples · D features, the last of them 1 for the intercept · K columns of a problem (1 for two
classes, else the classes) · P problems.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-5  # for the largest entry of the mean loss's gradient; scikit-learn's default is 1e-4
DAMPING = 1e-3  # of the intercepts, as a share of their curvature
MAX_NEWTON_STEPS = 50
MAX_CG_STEPS = 50
MAX_HALVINGS = 10
COLUMNS_AT_ONCE = 512  # columns P K solved together, which bounds the memory to a few [N, 512]


def fit_logistic(
    features: Tensor, labels: Tensor, classes: int, train_masks: Tensor, penalties: Tensor
) -> Tensor:
    """Fit P regressions: coefficients [P, D + 1, K], the intercept last.

    Args:
        features: [N, D] float.
        labels: [N] int64, below ``classes``.
        classes: Number of classes.
        train_masks: [P, N] bool, the samples that each problem is fitted to.
        penalties: [P], C of each problem: the inverse of the penalty's weight.
    """
    features = with_ones(features)
    gram = features.T @ features
    columns = 1 if classes == 2 else classes
    chunk = max(1, COLUMNS_AT_ONCE // columns)
    return torch.cat(
        [
            _Problems(features, gram, labels, classes, masks, c).solve()
            for masks, c in zip(train_masks.split(chunk), penalties.split(chunk), strict=True)
        ]
    )


def predict_logistic(features: Tensor, coefficients: Tensor) -> Tensor:
    """The classes that each problem's coefficients predict: [N, D], [P, D + 1, K] -> [P, N]."""
    scores = with_ones(features) @ coefficients  # (P, N, K)
    return (scores.squeeze(2) > 0).long() if scores.shape[2] == 1 else scores.argmax(dim=2)


def with_ones(features: Tensor) -> Tensor:
    """Append a column of ones, for the intercept: [N, D] -> [N, D + 1]."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


class _Problems:
    """P problems on the same features, solved side by side."""

    def __init__(
        self, features: Tensor, gram: Tensor, labels: Tensor, classes: int, masks: Tensor, penalties: Tensor
    ) -> None:
        self.features, self.gram = features, gram
        self.binary = classes == 2
        self.masks = masks.T.to(features.dtype).unsqueeze(2)  # (N, P, 1)
        self.counts = masks.sum(dim=1).to(features.dtype)  # (P,)
        targets = labels.unsqueeze(1) if self.binary else F.one_hot(labels, classes)
        self.targets = targets.to(features.dtype).unsqueeze(1)  # (N, 1, K)
        ridge = (1 / penalties).to(features.dtype).repeat(features.shape[1], 1)
        ridge[-1] = 0  # no penalty on the intercept
        self.ridge = ridge.unsqueeze(2)  # (D, P, 1)
        self.penalties = penalties

    def solve(self) -> Tensor:
        """Newton's method with a line search: coefficients [P, D, K]."""
        problems, columns = len(self.counts), self.targets.shape[2]
        weights = self.features.new_zeros(self.features.shape[1], problems, columns)
        scores = self._scores(weights)
        loss = self._loss(weights, scores)
        for _ in range(MAX_NEWTON_STEPS):
            probabilities = scores.sigmoid() if self.binary else scores.softmax(dim=2)
            gradient = self._transposed(self.masks * (probabilities - self.targets)) + self.ridge * weights
            largest = gradient.abs().amax(dim=(0, 2)) / self.counts
            if (largest <= TOLERANCE).all():
                break
            step = self._newton_step(gradient, probabilities)
            weights, scores, loss, has_moved = self._line_search(weights, scores, loss, step)
            if not has_moved:
                break  # the precision allows no more
        return weights.transpose(0, 1)

    def _scores(self, weights: Tensor) -> Tensor:
        """X w: [D, P, K] -> [N, P, K]."""
        return (self.features @ weights.flatten(1)).view(len(self.features), *weights.shape[1:])

    def _transposed(self, residuals: Tensor) -> Tensor:
        """X^T r: [N, P, K] -> [D, P, K]."""
        return (self.features.T @ residuals.flatten(1)).view(-1, *residuals.shape[1:])

    def _loss(self, weights: Tensor, scores: Tensor) -> Tensor:
        """Summed over samples, with the penalty: [P]."""
        if self.binary:
            losses = F.softplus(scores) - self.targets * scores
        else:
            losses = scores.logsumexp(dim=2, keepdim=True) - (self.targets * scores).sum(dim=2, keepdim=True)
        return (self.masks * losses).sum(dim=(0, 2)) + (self.ridge * weights.square()).sum(dim=(0, 2)) / 2

    def _newton_step(self, gradient: Tensor, probabilities: Tensor) -> Tensor:
        """Solve H step = -gradient, the more exactly the smaller the gradient: [D, P, K].

        Textbook names: residual r, direction p, Hp, z = M^-1 r, rz = r^T z; ``active`` [P] are the problems
        that have not converged.
        """
        spread = (self.masks * probabilities * (1 - probabilities)).sum(dim=(0, 2)) / probabilities.shape[2]
        # A softmax does not change when all its intercepts do: without damping H has no inverse there.
        damped = self.ridge.clone()
        damped[-1] = DAMPING * spread.unsqueeze(1)

        def hessian_times(p: Tensor) -> Tensor:
            change = self._scores(p)
            if self.binary:
                change = probabilities * (1 - probabilities) * change
            else:
                change = probabilities * (change - (probabilities * change).sum(dim=2, keepdim=True))
            return self._transposed(self.masks * change) + damped * p

        precondition = self._preconditioner(spread / len(self.features))
        step, r = torch.zeros_like(gradient), -gradient
        size = r.square().sum(dim=(0, 2))  # squared norm of r, (P,)
        precision = 0.5 * (gradient.abs().amax(dim=(0, 2)) / self.counts).sqrt()
        tol = size * precision.clamp(0.01, 0.1).square()
        z = precondition(r)
        p, rz = z, (r * z).sum(dim=(0, 2))
        for _ in range(MAX_CG_STEPS):
            active = size > tol
            if not active.any():
                break
            Hp = hessian_times(p)  # noqa: N806
            alpha = torch.where(active, rz / (p * Hp).sum(dim=(0, 2)), 0.0).unsqueeze(1)
            step = step + alpha * p
            r = r - alpha * Hp
            size = torch.where(active, r.square().sum(dim=(0, 2)), size)
            z = precondition(r)
            new_rz = (r * z).sum(dim=(0, 2))
            beta = torch.where(active, new_rz / rz, 0.0).unsqueeze(1)
            p, rz = z + beta * p, new_rz
        return step

    def _preconditioner(self, curvatures: Tensor) -> Callable[[Tensor], Tensor]:
        """The inverse of c X^T X + 1/C, with the mean curvature c of the problems that share a penalty C."""
        factors: list[tuple[Tensor, Tensor]] = []
        for penalty in self.penalties.unique().tolist():
            shares = self.penalties == penalty  # (P,)
            matrix = self.gram * curvatures[shares].mean()
            matrix.diagonal()[:-1] += 1 / penalty
            matrix.diagonal()[-1] *= 1 + DAMPING
            factors.append((shares, torch.linalg.cholesky(matrix)))

        def precondition(r: Tensor) -> Tensor:
            z = torch.empty_like(r)
            for shares, factor in factors:
                part = r[:, shares]
                z[:, shares] = torch.cholesky_solve(part.flatten(1), factor).view_as(part)
            return z

        return precondition

    def _line_search(
        self, weights: Tensor, scores: Tensor, loss: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Take the step, halved for each problem whose loss it would raise; also whether any has moved."""
        change = self._scores(step)
        length = torch.ones_like(loss)
        for _ in range(MAX_HALVINGS):
            trial = self._loss(weights + length.unsqueeze(1) * step, scores + length.unsqueeze(1) * change)
            # Near the minimum a loss changes by less than its rounding.
            is_worse = ~(trial <= loss * (1 + 8 * torch.finfo(loss.dtype).eps)) & (length > 0)
            if not is_worse.any():
                break
            length = torch.where(is_worse, length / 2, length)
        length = torch.where(is_worse, 0.0, length)
        weights = weights + length.unsqueeze(1) * step
        scores = scores + length.unsqueeze(1) * change
        return weights, scores, self._loss(weights, scores), bool((length > 0).any())
