"""Divergences between what two detectors believe."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["focal_kl", "softened_kl"]


def focal_kl(logits: Tensor, teacher_logits: Tensor, gamma: float = 0.5) -> Tensor:
    """Binary KL divergence from the teacher's probability to the student's, larger where they disagree; any shape.

    ``((t - p)^2 + 1e-6)^(gamma/2) * KL(t || p)`` with the gradient flowing through the weight too, as in the released
    code of CoLAD (Nguyen et al. 2022). The teacher's logits are taken as constants.
    """
    teacher_logits = teacher_logits.detach()
    target, probability = teacher_logits.sigmoid(), logits.sigmoid()
    on = target * (F.logsigmoid(teacher_logits) - F.logsigmoid(logits))
    off = (1 - target) * (F.logsigmoid(-teacher_logits) - F.logsigmoid(-logits))
    disagreement = ((target - probability).square() + 1e-6).pow(gamma / 2)
    return disagreement * (on + off)


def softened_kl(
    logits: Float[Tensor, "*b K"], chances: Float[Tensor, "*b K"], temperature: float
) -> Float[Tensor, "*b"]:
    """KL divergence from the teacher's ``chances`` to the student's softened distribution, times temperature squared.

    The mean over the K entries, not their sum, as in mmdetection and the released code of localization distillation
    (Zheng et al., CVPR 2022, eq. 3). ``chances`` are softened already, ``softmax(teacher_logits / temperature)``, and
    taken as constants; the square keeps the gradient as large as without softening (Hinton et al. 2015).
    """
    chances = chances.detach()
    entropy = torch.xlogy(chances, chances)
    cross = chances * (logits.float() / temperature).log_softmax(-1)
    return temperature**2 * (entropy - cross).mean(-1)
