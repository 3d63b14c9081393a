"""Scores without labels: the next sentence is to be found among sentences that were not trained on.

Shapes: N held-out sentences · A anchors, those with a next one · D dim.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.distributed import is_main_process
from core.io.errors import InputError
from core.training.loop import eval_mode
from core.training.runtime import autocast
from sentence.data import EncodedCorpus, split_sentences
from sentence.objective import neighbour_scores
from shared_eval.metrics import effective_rank, embedding_metrics
from shared_eval.probes.checks import check_finite

EVALUATION = "held-out-1"  # the rules by which these scores are made; change it with them
MAX_HELD_OUT = 400  # sentences
MAX_BOOKS = 8  # that sentences are held out of
MIN_HELD_OUT = 10
SENTENCES_AT_ONCE = 64


def hold_out(corpus: EncodedCorpus) -> EncodedCorpus:
    """The corpus without the last sentences of its longest books, a tenth of each at most, for training.

    Their words are part of the vocabulary. A corpus that is too small is returned as it is, with a warning.
    """
    lengths = np.diff(corpus.books)
    counts = np.zeros_like(lengths)
    longest = np.argsort(-lengths, kind="stable")[:MAX_BOOKS]
    counts[longest] = np.minimum(lengths[longest] // 10, MAX_HELD_OUT // len(longest))
    counts[counts < 2] = 0  # such a sentence has no next one
    if counts.sum() < MIN_HELD_OUT:
        if is_main_process():
            print(
                f"warning: a tenth of the corpus has fewer than {MIN_HELD_OUT} sentences: nothing is held "
                "out, and the run has no scores",
                file=sys.stderr,
            )
        return corpus
    return replace(corpus, held_out=counts)


def scores(
    encoders: nn.Module,
    corpus: EncodedCorpus,
    longest: int,
    temperature: float | None,
    device: torch.device,
    precision: str,
) -> dict[str, float]:
    """``text_scores`` of the held-out sentences of a corpus, by ``encoders`` that return f and g."""
    ends = corpus.books[1:]
    positions = np.concatenate(
        [np.arange(end - count, end) for end, count in zip(ends, corpus.held_out, strict=True)]
    )
    books = np.searchsorted(ends, positions, side="right")
    with autocast(device, precision):
        f, g = _embed(encoders, corpus, positions, longest, device)
    return text_scores(f, g, torch.from_numpy(positions), torch.from_numpy(books), temperature)


def text_scores(
    f: Tensor, g: Tensor, positions: Tensor, books: Tensor, temperature: float | None
) -> dict[str, float]:
    """The scores of sentences by f and g [N, D], which are at ``positions`` [N] of a text, in ``books`` [N].

    ``next_sentence_accuracy`` is the share of anchors whose next sentence has a larger score, as the
    objective computes it, than all others in the batch, except the anchor itself and the one before it.
    Alignment, uniformity and similarities are those of f(anchor) and g(next), at unit norm, and
    ``effective_rank`` is that of both outputs concatenated.
    """
    anchors = torch.nonzero(books[1:] == books[:-1]).squeeze(1)
    position, book = positions[anchors], books[anchors]
    distance = (position + 1) - position[:, None]  # [A, A], from the anchor to the candidate
    is_negative = (book != book[:, None]) | (distance.abs() > 1)
    unit_f, unit_g = F.normalize(f[anchors], dim=1), F.normalize(g[anchors + 1], dim=1)
    scored = neighbour_scores(f[anchors], g[anchors + 1], temperature)
    hardest = scored.masked_fill(~is_negative, -torch.inf).amax(dim=1)
    return {
        "next_sentence_accuracy": (scored.diagonal() > hardest).double().mean().item(),
        **embedding_metrics(unit_f, unit_g, is_negative),
        "effective_rank": effective_rank(torch.cat([f, g], dim=1)),
    }


def scores_of_lines(
    sentences: Sequence[str], encode: Callable[[Sequence[str]], Tensor], parts: int, temperature: float | None
) -> dict[str, float]:
    """``text_scores`` of the sentences of a text.

    An embedding is f and g concatenated, or with one of ``parts`` both of them.

    Raises InputError if there are too few.
    """
    if len(sentences) < MIN_HELD_OUT:
        raise InputError(f"the text has {len(sentences)} sentences; at least {MIN_HELD_OUT} are needed")
    embeddings = encode(sentences).cpu()
    check_finite(embeddings, "the embeddings of the text")
    f, g = embeddings.chunk(2, dim=1) if parts == 2 else (embeddings, embeddings)
    positions = torch.arange(len(embeddings))
    return text_scores(f, g, positions, torch.zeros_like(positions), temperature)


def _embed(
    encoders: nn.Module, corpus: EncodedCorpus, positions: np.ndarray, longest: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """f and g of sentences, in eval mode and float32, on the CPU: [N] -> [N, D], [N, D]."""
    ids, lengths = corpus.take(positions, longest)
    with eval_mode(encoders):
        outputs = [
            encoders(part.to(device), sizes)
            for part, sizes in split_sentences(SENTENCES_AT_ONCE, ids, lengths)
        ]
    f, g = (torch.cat(side).float().cpu() for side in zip(*outputs, strict=True))
    check_finite(torch.cat([f, g]), "the embeddings of the held-out sentences")
    return f, g
