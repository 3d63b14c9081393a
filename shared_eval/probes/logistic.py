"""Many logistic regressions on the same features at once: all folds and penalties of a cross-validation.

One by one, each would read the whole feature matrix in every iteration; together they are matrix products.
Each is what scikit-learn's LogisticRegression fits: L2 penalty 1/C, no penalty on the intercept, a logistic
function for two classes, a softmax for more. Tests compare the two.

Method: Newton's, each step solved by preconditioned conjugate gradients (Nocedal and Wright, Numerical
Optimization, 2nd ed., algorithms 5.3 and 7.1), on the features in their principal axes. The penalty is the
same there, and the intercept takes the offset; so neither offset, unit nor rank of the features matters to
the precision, and the preconditioner is a diagonal.

Shapes: N samples · D features · R principal components, and 1 for the intercept · K columns of a problem
(1 for two classes, else the classes) · P problems.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from shared_eval.probes.checks import check_finite

# For the largest entry of the mean loss's gradient, in the features' unit as scikit-learn's, whose default is
# 1e-4; bounded where that unit is below the first component's standard deviation, or above what rounds away.
TOLERANCE = 5e-6
MAX_TOLERANCE = 1e-5
DAMPING = 1e-3  # of the intercepts, as a share of their curvature
MIN_CURVATURE = 1e-6  # mean of the samples'
MAX_NEWTON_STEPS = 50
MAX_CG_STEPS = 50
MAX_HALVINGS = 10
COLUMNS_AT_ONCE = 512  # columns P K solved together, which bounds the memory to a few [N, 512]
ROWS_AT_ONCE = 4096  # samples in float64 at a time


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

    Raises:
        InputError: The features are not finite.
    """
    check_finite(features)
    axes = principal_axes(features)
    columns = 1 if classes == 2 else classes
    chunk = max(1, COLUMNS_AT_ONCE // columns)
    weights = [
        _Problems(axes, labels, classes, masks, c).solve()
        for masks, c in zip(train_masks.split(chunk), penalties.split(chunk), strict=True)
    ]
    return axes.coefficients(torch.cat(weights))


@dataclass(frozen=True)
class PrincipalAxes:
    """Features in their principal axes, in units in which the first component has variance 1."""

    components: Tensor  # [N, R + 1], the last 1 for the intercept
    squares: Tensor  # [R + 1], sums of the components' squares
    unit: float  # of the components, in that of the features
    centre: Tensor  # [D] float64, mean of the features
    directions: Tensor  # [D, R] float64, orthonormal

    def coefficients(self, weights: Tensor) -> Tensor:
        """The features' coefficients, from those of the components: [P, R + 1, K] -> [P, D + 1, K]."""
        slopes = self.directions @ (weights[:, :-1].double() / self.unit)
        intercepts = weights[:, -1:].double() - (self.centre @ slopes).unsqueeze(1)
        return torch.cat([slopes, intercepts], dim=1).to(weights.dtype)


def principal_axes(features: Tensor) -> PrincipalAxes:
    """Features [N, D] in their principal axes, without those in which they differ by rounding alone.

    Computed in float64. Where variances differ by more than its precision, axes are orthonormal but not
    principal; ``squares`` are right all the same.
    """
    count, dim = features.shape
    largest = features.abs().amax().item() or 1.0  # squares of the features may overflow
    chunks = features.split(ROWS_AT_ONCE)
    centre = torch.stack([(rows.double() / largest).sum(dim=0) for rows in chunks]).sum(dim=0) / count

    def centred(rows: Tensor) -> Tensor:
        return rows.double() / largest - centre

    if count < dim:  # the samples span fewer dimensions
        basis = torch.linalg.qr(centred(features).T).Q
        spanned = centred(features) @ basis
        squares, rotation = torch.linalg.eigh(spanned.T @ spanned)
        directions = basis @ rotation
    else:
        gram = centre.new_zeros(dim, dim)
        for rows in chunks:
            gram.addmm_(centred(rows).T, centred(rows))
        squares, directions = torch.linalg.eigh(gram)
    unit = (squares[-1].clamp(min=0) / count).sqrt().item() or 1.0
    components = torch.cat([(centred(rows) @ (directions / unit)).to(features.dtype) for rows in chunks])
    norms = torch.linalg.vector_norm(components, dim=0, dtype=torch.float64)
    rounding = max(count, dim) * torch.finfo(torch.float64).eps
    is_kept = norms > rounding * count**0.5
    squares = torch.cat([norms[is_kept].square(), norms.new_tensor([count])])
    return PrincipalAxes(
        components=with_ones(components[:, is_kept]),
        squares=squares.to(features.dtype),
        unit=unit * largest,
        centre=centre * largest,
        directions=directions[:, is_kept],
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
        self, axes: PrincipalAxes, labels: Tensor, classes: int, masks: Tensor, penalties: Tensor
    ) -> None:
        self.features, self.squares = axes.components, axes.squares
        self.binary = classes == 2
        dtype = self.features.dtype
        self.masks = masks.T.to(dtype).unsqueeze(2)  # (N, P, 1)
        self.counts = masks.sum(dim=1).to(dtype)  # (P,)
        targets = labels.unsqueeze(1) if self.binary else F.one_hot(labels, classes)
        self.targets = targets.to(dtype).unsqueeze(1)  # (N, 1, K)
        # The components' unit may be any: their weights' penalty must be finite, and so must their squares.
        weight = (1 / penalties.double() / axes.unit / axes.unit).clamp(max=torch.finfo(dtype).max ** 0.5)
        ridge = weight.to(dtype).repeat(self.features.shape[1], 1)
        ridge[-1] = 0  # no penalty on the intercept
        self.ridge = ridge.unsqueeze(2)  # (R, P, 1)
        self.tolerance = max(min(TOLERANCE / axes.unit, MAX_TOLERANCE), torch.finfo(dtype).eps)

    def solve(self) -> Tensor:
        """Newton's method with a line search: coefficients [P, R, K]."""
        problems, columns = len(self.counts), self.targets.shape[2]
        weights = self.features.new_zeros(self.features.shape[1], problems, columns)
        scores = self._scores(weights)
        loss = self._loss(weights, scores)
        for _ in range(MAX_NEWTON_STEPS):
            probabilities = scores.sigmoid() if self.binary else scores.softmax(dim=2)
            gradient = self._transposed(self.masks * (probabilities - self.targets)) + self.ridge * weights
            largest = gradient.abs().amax(dim=(0, 2)) / self.counts
            if (largest <= self.tolerance).all():
                break
            step = self._newton_step(gradient, probabilities)
            weights, scores, loss, has_moved = self._line_search(weights, scores, loss, step)
            if not has_moved:
                break  # the precision allows no more
        return weights.transpose(0, 1)

    def _scores(self, weights: Tensor) -> Tensor:
        """X w: [R, P, K] -> [N, P, K]."""
        return (self.features @ weights.flatten(1)).view(len(self.features), *weights.shape[1:])

    def _transposed(self, residuals: Tensor) -> Tensor:
        """X^T r: [N, P, K] -> [R, P, K]."""
        return (self.features.T @ residuals.flatten(1)).view(-1, *residuals.shape[1:])

    def _loss(self, weights: Tensor, scores: Tensor) -> Tensor:
        """Summed over samples, with the penalty: [P]."""
        if self.binary:
            losses = F.softplus(scores) - self.targets * scores
        else:
            losses = scores.logsumexp(dim=2, keepdim=True) - (self.targets * scores).sum(dim=2, keepdim=True)
        return (self.masks * losses).sum(dim=(0, 2)) + (self.ridge * weights.square()).sum(dim=(0, 2)) / 2

    def _newton_step(self, gradient: Tensor, probabilities: Tensor) -> Tensor:
        """Solve H step = -gradient, the more exactly the smaller the gradient: [R, P, K].

        Textbook names: residual r, direction p, Hp, z = M^-1 r, rz = r^T z; ``active`` [P] are the problems
        that have not converged.
        """
        spread = (self.masks * probabilities * (1 - probabilities)).sum(dim=(0, 2)) / probabilities.shape[2]
        spread = spread.maximum(
            MIN_CURVATURE * self.counts
        )  # nothing is left of it if all are predicted with certainty
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

        # The Hessian if every sample had the mean curvature: a diagonal in principal axes, (R, P, 1).
        diagonal = self.squares.view(-1, 1, 1) * (spread / len(self.features)).unsqueeze(1) + damped
        step, r = torch.zeros_like(gradient), -gradient
        size = r.square().sum(dim=(0, 2))  # squared norm of r, (P,)
        precision = 0.5 * (gradient.abs().amax(dim=(0, 2)) / self.counts).sqrt()
        tol = size * precision.clamp(0.01, 0.1).square()
        z = r / diagonal
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
            z = r / diagonal
            new_rz = (r * z).sum(dim=(0, 2))
            beta = torch.where(active, new_rz / rz, 0.0).unsqueeze(1)
            p, rz = z + beta * p, new_rz
        return step

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
