"""``--compile``: the layers alone, under the names they have, and a run without it where it fails."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ladle import engine
from ladle.data.scenes import CLASSES
from ladle.families import detector_spec
from ladle.recipes import train
from ladle.recipes.compiling import compile_layers
from ladle.recipes.jobs import Job
from tests.recipes.tiny import RUN, same_tensors, same_weights


class Compiler:
    """Stands in for ``nn.Module.compile``, which takes seconds: counts the calls of what was compiled."""

    def __init__(self):
        self.calls, self.is_broken = [], False

    def compile(self, module, backend):
        def call(*values):
            self.calls.append(type(module).__name__)
            if self.is_broken:
                raise RuntimeError("no compiler\nwas found")
            return module._call_impl(*values)

        module._compiled_call_impl = call


@pytest.fixture
def compiler(monkeypatch):
    stand_in = Compiler()
    monkeypatch.setattr(nn.Module, "compile", lambda module, backend: stand_in.compile(module, backend))
    return stand_in


def network(name):
    torch.manual_seed(0)
    return detector_spec(name, CLASSES, imgsz=64).build()


@pytest.mark.parametrize(("name", "parts"), [("paa-tiny", 3), ("fasterrcnn-tiny", 3), ("tood+o2o-tiny", 4)])
def test_a_network_is_the_same_after_it_is_compiled(compiler, name, parts):
    plain, tried = network(name), network(name)
    assert compile_layers(tried, batch=2, side=64) is None
    assert len(compiler.calls) == parts  # backbone, feature pyramid, dense heads; a region head is left out
    assert same_tensors(plain.state_dict(), tried.state_dict())
    assert list(plain.state_dict()) == list(tried.state_dict())
    assert all(parameter.grad is None for parameter in tried.parameters())


def test_what_cannot_be_compiled_is_left_as_it_is(compiler):
    tried, compiler.is_broken = network("paa-tiny"), True
    assert compile_layers(tried, batch=2, side=64) == "RuntimeError: no compiler was found"
    assert [one for one in tried.modules() if one._compiled_call_impl is not None] == []


def last(run):
    return run.folder / "weights" / "last.safetensors"


@pytest.mark.slow
def test_a_compiled_run_has_the_same_weights_and_is_resumed_without_it(compiler, data, tmp_path, capsys):
    plain = train(data, "paa-tiny", replace(RUN, name="plain", project=str(tmp_path)))
    run = train(data, "paa-tiny", replace(RUN, name="compiled", compile=True, project=str(tmp_path)))
    assert len(compiler.calls) == 3 * (1 + 2 + 1)  # the trial, two steps, and the evaluation of an epoch
    assert capsys.readouterr().err == ""
    assert same_weights(last(run), last(plain))
    job = Job.read(str(run.folder), "train")
    assert job.run.compile
    assert job.changed({"compile": False, "epochs": 2}).run == replace(job.run, compile=False, epochs=2)


def test_a_run_that_cannot_be_compiled_warns_once(compiler, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(engine, "fit", stop)
    compiler.is_broken = True
    with pytest.raises(InterruptedError):
        train(data, "paa-tiny", replace(RUN, compile=True, project=str(tmp_path)))
    assert capsys.readouterr().err == (
        "--compile: paa-tiny is trained without it, as torch.compile failed: RuntimeError: no compiler was found\n"
    )


def stop(*_):
    raise InterruptedError
