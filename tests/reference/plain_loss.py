"""The absorbing loss as it is written down: (B, L, N) log scores, every position, gradients by autograd.

Nothing here imports the package.
"""

import math

import torch
from torch import Tensor


def log_score_of_logits(logits: Tensor, sigma: Tensor, *, parameterization: str, scale_by_sigma: bool) -> Tensor:
    """Logits (B, L, N) read as log scores; N = V + 1 and the last column is MASK."""
    vocab_size = logits.shape[-1] - 1
    log_expm1 = torch.log(torch.exp(sigma) - 1)[:, None, None]
    if parameterization == "normalized":
        normalised = logits[..., :vocab_size] - torch.logsumexp(logits[..., :vocab_size], -1, keepdim=True)
        return torch.cat([normalised - log_expm1, torch.zeros_like(logits[..., :1])], -1)
    return logits - log_expm1 - math.log(vocab_size) if scale_by_sigma else logits


def absorbing_score_entropy(log_score: Tensor, xt: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """Score entropy of every position under the absorbing process; zero where `xt` is not MASK.

    With Q of Eq. 16 of Lou et al. 2024 (arXiv:2310.16834v3) and r = 1 / expm1(sigma), at a masked position:

        sum_{y != MASK} exp(log_score[y])  -  r log_score[x0]  +  r (log r - 1)

    which is >= 0, and 0 only if exp(log_score) is r at x0 and 0 elsewhere.
    """
    mask_id = log_score.shape[-1] - 1
    r = 1 / torch.expm1(sigma)[:, None]
    at_x0 = log_score.gather(-1, x0[..., None])[..., 0]
    entropy = log_score[..., :mask_id].exp().sum(-1) - r * at_x0 + r * (r.log() - 1)
    return torch.where(xt == mask_id, entropy, 0)


def plain_absorbing_loss(
    log_score: Tensor, xt: Tensor, x0: Tensor, sigma: Tensor, sequence_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the score entropy over all sequences, and the score entropy of every position."""
    entropies = absorbing_score_entropy(log_score, xt, x0, sigma)
    return (entropies.sum(-1) * sequence_weight).sum(), entropies


def plain_mixture_loss(
    logits: Tensor, gate: Tensor, scores: Tensor, prefix: Tensor, x0: Tensor, sigma: Tensor, row_weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the loss of masked rows whose law mixes a softmax over V tokens with a pointer over a prefix.

    Everything is given row by row: logits (M, V), the gate's logit (M,), scores (M, P), and the ids of the prefix
    (M, P), of which those that are no token cannot be pointed at.
    """
    vocab_size, rows = logits.shape[1], []
    for i in range(len(x0)):
        probs = torch.softmax(logits[i], 0)
        places = [j for j in range(prefix.shape[1]) if prefix[i, j] < vocab_size]
        if places:
            pointer, share = torch.softmax(scores[i, places], 0), torch.sigmoid(gate[i])
            copied = [pointer[k] * (prefix[i, j] == x0[i]) for k, j in enumerate(places)]
            prob = (1 - share) * probs[x0[i]] + share * torch.stack(copied).sum()
        else:
            prob = probs[x0[i]]
        rows.append(-torch.log(prob) / (torch.exp(sigma[i]) - 1))
    entropies = torch.stack(rows)
    return (entropies * row_weight).sum(), entropies
