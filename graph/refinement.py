"""Colour refinement (1-WL): groups of nodes for which a GIN computes equal representations.

Shapes: V nodes · E edges · F node features.
"""

import numpy as np
import torch
from torch import Tensor


def refine(features: Tensor, edge_index: Tensor, rounds: int) -> Tensor:
    """Colours of nodes, equal where the trees of neighbours ``rounds`` deep are: [V, F], [2, E] -> [V].

    Nodes of one colour have equal representations in each of the first ``rounds`` layers of any message
    passing that sums over neighbours (Xu et al., ICLR 2019, lemma 2): one of them is enough to compute.
    """
    rows = features.contiguous().numpy()
    row_type = np.dtype((np.void, rows.itemsize * rows.shape[1]))  # compares whole rows
    colour = torch.from_numpy(np.unique(rows.view(row_type).ravel(), return_inverse=True)[1])
    source, target = edge_index
    for round_ in range(rounds):
        # A multiset of colours is hashed to the sum of a random number for each colour. With 128 bits two
        # different multisets practically never get the same sum.
        generator = torch.Generator().manual_seed(round_)
        numbers = torch.randint(-(2**63), 2**63 - 1, (int(colour.max()) + 1, 2), generator=generator)
        sums = torch.zeros(len(features), 2, dtype=torch.int64)
        sums.index_add_(0, target, numbers[colour[source]])
        colour = torch.cat([colour.unsqueeze(1), sums], dim=1).unique(dim=0, return_inverse=True)[1]
    return colour
