import pytest
import torch

from ladle.engine import SGD, AdamW
from ladle.engine.optimizer import parameter_groups
from ladle.engine.restoring import restore_optimizer
from ladle.errors import UserError

from .toy import Toy


def names_of(module, group):
    by_id = {id(parameter): name for name, parameter in module.named_parameters()}
    return [by_id[id(parameter)] for parameter in group["params"]]


def test_norms_and_biases_are_not_decayed_by_adamw():
    toy = Toy()
    groups = AdamW(lr=0.1, weight_decay=0.3).build(toy).param_groups
    plain = {name for group in groups if group["weight_decay"] == 0 for name in names_of(toy, group)}
    decayed = {name for group in groups if group["weight_decay"] == 0.3 for name in names_of(toy, group)}
    assert decayed == {"student.backbone.0.weight", "student.head.weight", "adapter.weight"}
    assert plain | decayed == {name for name, _ in toy.named_parameters()}


def test_sgd_decays_everything_unless_told_not_to():
    assert {group["weight_decay"] for group in SGD(lr=0.1).build(Toy()).param_groups} == {1e-4}
    assert {group["weight_decay"] for group in SGD(lr=0.1, decay_vectors=False).build(Toy()).param_groups} == {0, 1e-4}


def test_the_backbone_learns_at_its_own_rate():
    toy = Toy()
    groups = SGD(lr=0.2, backbone_lr=0.1).build(toy).param_groups
    rates = {name: group["initial_lr"] for group in groups for name in names_of(toy, group)}
    assert {name for name, rate in rates.items() if rate == pytest.approx(0.02)} == {
        name for name in rates if name.startswith("student.backbone.")
    }
    assert rates["adapter.weight"] == rates["student.head.weight"] == 0.2


def test_every_trainable_parameter_is_in_one_group_and_frozen_ones_in_none():
    toy = Toy()
    toy.student.backbone[0].requires_grad_(False)
    groups = parameter_groups(toy, lr=0.1, weight_decay=0.1, backbone_lr=0.5)
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len(listed) == len({id(p) for p in listed}) == sum(p.requires_grad for p in toy.parameters())
    assert all(parameter.requires_grad for parameter in listed)


def test_the_order_of_parameters_is_that_of_the_module():
    groups = [
        names_of(toy, group) for toy in [Toy()] for group in AdamW(lr=0.1, backbone_lr=0.1).build(toy).param_groups
    ]
    order = [name for name, _ in Toy().named_parameters()]
    assert groups == [sorted(group, key=order.index) for group in groups]


def test_an_optimizer_goes_by_its_description():
    built = AdamW(lr=0.1, betas=(0.8, 0.9)).build(Toy())
    assert isinstance(built, torch.optim.AdamW)
    assert built.defaults["betas"] == (0.8, 0.9)
    nesterov = SGD(lr=0.1, momentum=0.7, nesterov=True).build(Toy())
    assert (nesterov.defaults["momentum"], nesterov.defaults["nesterov"]) == (0.7, True)


def test_a_wholly_frozen_objective_is_refused():
    with pytest.raises(UserError, match="nothing to train"):
        SGD(lr=0.1).build(Toy().requires_grad_(False))


def stepped(optimizer, toy):
    for parameter in toy.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("spec", [SGD(lr=0.1), AdamW(lr=0.1)])
def test_the_fused_implementation_is_for_gpus_and_takes_up_the_state_of_the_other(spec, monkeypatch):
    toy = Toy()
    plain = stepped(spec.build(toy), toy)
    assert plain.defaults["fused"] is None
    monkeypatch.setattr("ladle.engine.optimizer.steps_fused", lambda parameters: all(p.ndim >= 0 for p in parameters))
    fused = spec.build(toy)
    assert fused.defaults["fused"] is True
    restore_optimizer(fused, plain.state_dict())
    assert all(group["fused"] for group in fused.param_groups)
    kept, taken = plain.state_dict()["state"], fused.state_dict()["state"]
    assert kept.keys() == taken.keys()
    assert all(torch.equal(kept[n][key], taken[n][key]) for n in kept for key in kept[n])
    stepped(fused, toy)
