"""Colour refinement: which nodes no GIN of so many layers can tell apart.

Shapes: V nodes · E edges · F node features.
"""

import numpy as np
import torch
from torch import Tensor


def refine(features: Tensor, edge_index: Tensor, rounds: int) -> Tensor:
    """Colour nodes such that equal colours mean equal trees of neighbours, ``rounds`` deep: -> int64 [V].

    ``features`` [V, F], ``edge_index`` [2, E]. Nodes of one colour have equal representations in each of
    the first ``rounds`` layers of any message passing that sums over neighbours (1-WL; Xu et al., ICLR 2019,
    lemma 2), so a computation needs but one of them.
    """
    rows = features.contiguous().numpy()
    colour = torch.from_numpy(
        np.unique(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel(), return_inverse=True)[
            1
        ]
    )
    source, target = edge_index
    for round_ in range(rounds):
        # A multiset of colours becomes the sum of its colours' random numbers: 128 bits, too many for two
        # multisets to meet by chance.
        generator = torch.Generator().manual_seed(round_)
        numbers = torch.randint(-(2**63), 2**63 - 1, (int(colour.max()) + 1, 2), generator=generator)
        sums = torch.zeros(len(features), 2, dtype=torch.int64)
        sums.index_add_(0, target, numbers[colour[source]])
        colour = torch.cat([colour.unsqueeze(1), sums], dim=1).unique(dim=0, return_inverse=True)[1]
    return colour
