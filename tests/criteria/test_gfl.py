"""The criterion of GFL against mmdetection's head, end to end: losses and gradients."""

import pytest
import torch

from ladle.assigners import ATSS
from ladle.boxes import decode_distances
from ladle.families import GFL
from ladle.losses import expected_bin
from ladle.types import Output, Predictions
from tests.golden.scenes import Scene, golden


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_gfl_has_the_losses_and_gradients_of_the_reference(case):
    scene, expected = Scene(case), golden(f"gfl__{case}__mmdet_gflhead_fwd_bwd")
    priors, truth = scene.priors(), scene.truth()
    logits, edges = torch.from_numpy(scene.logits).clone().requires_grad_(), scene.edges().requires_grad_()
    boxes = decode_distances(priors.centers, expected_bin(edges) * priors.stride[:, None])
    output = Output(Predictions(logits, boxes, edges=edges), priors, ())
    plan = ATSS()(output.predictions.detach(), priors, truth)
    terms = GFL.criterion(output, truth, plan)
    assert terms["box"].count > 1, "below one the reference no longer divides by the sum of scores"

    losses = {name: term.total / torch.maximum(term.count, term.floor) for name, term in terms.items()}
    sum(losses.values()).backward()
    for ours, theirs in (("class", "loss_cls"), ("box", "loss_bbox"), ("edges", "loss_dfl")):
        torch.testing.assert_close(losses[ours].detach(), expected[theirs].sum(), rtol=1e-4, atol=0)
    for leaf, name in ((logits, "grad_cls"), (edges, "grad_reg")):
        found, wanted = leaf.grad.flatten(2), expected[name]
        found = found if wanted.ndim == 3 else found.abs().sum(2)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)
