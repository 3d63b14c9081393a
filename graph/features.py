"""Node features: how labels, attributes or degrees of nodes become numbers, alike for graphs seen later.

Shapes: V nodes of all graphs · C columns of labels · A attributes · F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import torch
from torch import Tensor

from core.io.errors import InputError
from core.training.settings import check_type
from graph.names import NodeFeatures

MAX_ONE_HOT_DEGREE = 1000  # from this on, joshr17/HCL standardises degrees instead of coding them one-hot
# Entries of all nodes' one-hot codes, 1 GiB in float32. One label far from the others would exceed it.
MAX_FEATURE_ENTRIES = 1 << 28


@dataclass(frozen=True, eq=False)
class NodeValues:
    """What a dataset says of its nodes, beside their edges."""

    labels: Tensor | None = None  # (V, C) int64
    attributes: Tensor | None = None  # (V, A) float32


@dataclass(frozen=True)
class Coding:
    """How node features are made. It is fitted to the graphs that are trained, and kept in the run's record.

    Attributes are taken as they are. Labels are one-hot, each column from its lowest label on, after the
    attributes. Degrees are one-hot from 0 to ``max_degree``, or standardised by ``mean`` and ``std``.
    """

    attributes: int = 0  # A
    lowest: tuple[int, ...] = ()  # label of each of the C columns
    widths: tuple[int, ...] = ()  # labels from the lowest to the highest
    max_degree: int | None = None
    mean: float | None = None  # of degrees
    std: float | None = None

    @property
    def is_degree(self) -> bool:
        """Whether features are degrees, which the edges alone determine."""
        return not (self.attributes or self.widths)

    @property
    def kind(self) -> NodeFeatures:
        """The values of nodes that features are made of."""
        if self.is_degree:
            return "degree"
        return "both" if self.attributes and self.widths else "attributes" if self.attributes else "labels"

    @property
    def num_features(self) -> int:
        """F."""
        degrees = 1 if self.max_degree is None else self.max_degree + 1
        return degrees if self.is_degree else self.attributes + sum(self.widths)

    def as_dict(self) -> dict[str, Any]:
        """What the record holds: the values that are set."""
        return {name: value for name, value in vars(self).items() if value != getattr(Coding, name)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Coding":
        """The coding that a record holds; raises InputError if a value has another type."""
        hints = get_type_hints(cls)
        known = {name: check_type(name, values[name], hint) for name, hint in hints.items() if name in values}
        return cls(**known)

    def features(self, values: NodeValues, degrees: Tensor, what: str) -> Tensor:
        """The features [V, F] of nodes with these values and degrees [V].

        Raises InputError, naming ``what``, if they are not those that the coding was fitted to.
        """
        if self.is_degree:
            return self._code_degrees(degrees, what)
        parts = []
        if self.attributes:
            found = 0 if values.attributes is None else values.attributes.shape[1]
            if values.attributes is None or found != self.attributes:
                raise InputError(f"{what} has {found} node attributes; the encoder takes {self.attributes}")
            parts.append(values.attributes)
        if self.widths:
            parts += self._code_labels(values.labels, what)
        return torch.cat(parts, dim=1)

    def _code_labels(self, labels: Tensor | None, what: str) -> list[Tensor]:
        """The one-hot codes [V, width] of each column of the labels [V, C]."""
        found = 0 if labels is None else labels.shape[1]
        if labels is None or found != len(self.widths):
            raise InputError(
                f"{what} has {found} columns of node labels; the encoder takes {len(self.widths)}"
            )
        coded = []
        for column, lowest, width in zip(labels.T, self.lowest, self.widths, strict=True):
            is_outside = (column < lowest) | (column >= lowest + width)
            if is_outside.any():
                raise InputError(
                    f"{what} has node label {column[is_outside][0]}; the encoder was trained with labels "
                    f"{lowest} to {lowest + width - 1}"
                )
            coded.append(_one_hot(column - lowest, width))
        return coded

    def _code_degrees(self, degrees: Tensor, what: str) -> Tensor:
        """[V] -> [V, F]."""
        if self.max_degree is None:
            return ((degrees.float() - torch.tensor(self.mean)) / torch.tensor(self.std)).unsqueeze(1)
        highest = int(degrees.max())
        if highest > self.max_degree:
            raise InputError(
                f"{what} has a node of degree {highest}; the encoder was trained with degrees up to "
                f"{self.max_degree}"
            )
        return _one_hot(degrees, self.max_degree + 1)


def _one_hot(index: Tensor, num_classes: int) -> Tensor:
    """[n] int64 -> [n, num_classes] float32."""
    return torch.zeros(len(index), num_classes).scatter_(1, index.unsqueeze(1), 1)


def fit_coding(wanted: NodeFeatures, values: NodeValues, degrees: Tensor, name: str) -> Coding:
    """The coding of a dataset's nodes, from their values and degrees [V].

    ``auto`` is the choice of joshr17/HCL: labels, or degrees where nodes have none.

    Raises InputError, naming the dataset, if nodes have no such values, or if one-hot codes take too much
    memory.
    """
    if wanted == "auto":
        wanted = "degree" if values.labels is None else "labels"
    if wanted == "degree":
        return _fit_degrees(degrees, name)
    kinds = ("labels", "attributes") if wanted == "both" else (wanted,)
    for kind in kinds:
        if getattr(values, kind) is None:
            raise InputError(
                f"`node_features` is {wanted}, but `dataset` {name!r} has no node {kind}; use auto, or degree"
            )
    attributes = values.attributes.shape[1] if "attributes" in kinds else 0
    if "labels" not in kinds:
        return Coding(attributes)
    low, high = values.labels.amin(dim=0), values.labels.amax(dim=0)
    return Coding(attributes, tuple(low.tolist()), tuple((high - low + 1).tolist()))


def _fit_degrees(degrees: Tensor, name: str) -> Coding:
    """Degrees one-hot, or standardised from ``MAX_ONE_HOT_DEGREE`` on."""
    max_degree = int(degrees.max())
    if max_degree >= MAX_ONE_HOT_DEGREE:
        # Where all degrees are equal, their deviation is 0.
        return Coding(mean=degrees.float().mean().item(), std=degrees.float().std().item() or 1.0)
    if len(degrees) * (max_degree + 1) > MAX_FEATURE_ENTRIES:
        raise InputError(
            f"`dataset` is {name!r}, whose {len(degrees)} nodes have degrees up to {max_degree}; "
            "coded one-hot they take too much memory"
        )
    return Coding(max_degree=max_degree)
