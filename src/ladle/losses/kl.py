"""Kullback-Leibler divergences between the predictions of a teacher and a student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["focal_kl", "softened_kl"]


def focal_kl(logits: Tensor, teacher_logits: Tensor, gamma: float = 0.5) -> Tensor:
    """Binary KL divergence between teacher and student, with a larger weight where they disagree; any shape.

    ``((t - p)^2 + 1e-6)^(gamma/2) * KL(t || p)``, where t and p are the sigmoid probabilities of teacher and student.
    As in the released code of CoLAD (Nguyen et al., WACV 2022), the gradient flows through the weight as well. The
    teacher's logits are detached.
    """
    teacher_logits = teacher_logits.detach()
    target, prob = teacher_logits.sigmoid(), logits.sigmoid()
    on = target * (F.logsigmoid(teacher_logits) - F.logsigmoid(logits))
    off = (1 - target) * (F.logsigmoid(-teacher_logits) - F.logsigmoid(-logits))
    disagreement = ((target - prob).square() + 1e-6).pow(gamma / 2)
    return disagreement * (on + off)


def softened_kl(logits: Float[Tensor, "*b K"], probs: Float[Tensor, "*b K"], temperature: float) -> Float[Tensor, "*b"]:
    """KL divergence between softened distributions of teacher and student, times temperature squared.

    ``probs`` are the teacher's probabilities ``softmax(teacher_logits / temperature)``; they are detached. The result
    is the mean over the K entries, not their sum, as in mmdetection and in the released code of localization
    distillation (Zheng et al., CVPR 2022, eq. 3). The factor ``temperature^2`` keeps the scale of the gradient
    (Hinton et al. 2015).
    """
    probs = probs.detach()
    entropy = torch.xlogy(probs, probs)
    cross = probs * (logits.float() / temperature).log_softmax(-1)
    return temperature**2 * (entropy - cross).mean(-1)
