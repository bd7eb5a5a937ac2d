"""Loggers get the scalars of results.csv, a resumed run goes on in its log, and a failing service ends no training."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
from lightning_fabric import Fabric

from ladle.engine.loggers import check_installed, open_loggers, split_loggers
from ladle.engine.report import Reporter
from ladle.engine.run import prepare
from ladle.errors import UserError

from .toy import SETTINGS, Toy, ToyLoader, read_rows, train

NAMES = ("tensorboard", "wandb", "mlflow")


class Services:
    """Stand-ins for the three packages, which record their calls."""

    def __init__(self, monkeypatch):
        self.calls, self.opened, self.closed, self.fails = [], [], [], False
        tensorboard = ModuleType("torch.utils.tensorboard")
        tensorboard.SummaryWriter = self.writer
        wandb = ModuleType("wandb")
        wandb.init = self.init
        mlflow, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
        mlflow.MlflowClient, mlflow.entities = lambda: self, entities
        entities.Metric = lambda key, value, timestamp, step: (step, key, value)
        for module in (tensorboard, wandb, mlflow, entities):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    def add(self, service, step, scalars):
        if self.fails:
            raise ConnectionError("no route\nto host")
        self.calls += [(service, step, name, value) for name, value in scalars]

    def writer(self, folder, purge_step):
        self.opened.append(("tensorboard", purge_step))
        return SimpleNamespace(
            add_scalar=lambda name, value, step: self.add("tensorboard", step, [(name, value)]),
            flush=lambda: None,
            close=lambda: self.closed.append("tensorboard"),
        )

    def init(self, project, name, dir, id, resume, config):  # noqa: A002
        self.opened.append(("wandb", project, name, id, resume, config))
        return SimpleNamespace(
            id=id or "w1",
            log=lambda scalars, step: self.add("wandb", step, scalars.items()),
            finish=lambda: self.closed.append("wandb"),
        )

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return f"of {name}"

    def create_run(self, experiment, run_name):
        self.opened.append(("mlflow", experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="m1"))

    def update_run(self, number, status):
        self.opened.append(("mlflow again", number, status))

    def log_param(self, number, name, value):
        self.opened.append(("param", number, name, value))

    def log_batch(self, number, metrics):
        assert number == "m1"
        for step, name, value in metrics:
            self.add("mlflow", step, [(name, value)])

    def set_terminated(self, number):
        self.closed.append("mlflow")

    def logged(self, service, begin=""):
        return {(step, name): value for one, step, name, value in self.calls if one == service}


@pytest.fixture
def services(monkeypatch):
    return Services(monkeypatch)


def test_names_are_split_and_unknown_ones_refused():
    assert split_loggers("wandb, tensorboard,wandb") == ("wandb", "tensorboard")
    with pytest.raises(UserError, match=r"--loggers comet: expected names among tensorboard, wandb, mlflow"):
        split_loggers("comet")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("ladle.engine.loggers.find_spec", lambda name: None if name == "wandb" else "there")
    check_installed(("tensorboard", "mlflow"))
    with pytest.raises(UserError, match=r"^--loggers wandb: the package wandb is not installed: pip install 'ladle"):
        check_installed(("tensorboard", "wandb"))


def test_every_service_gets_the_rows_of_results_and_the_readings_between(services, tmp_path):
    train(Fabric(accelerator="cpu", devices=1), tmp_path, replace(SETTINGS, epochs=2, loggers=NAMES))
    rows = read_rows(tmp_path)
    for service in NAMES:
        found = services.logged(service)
        for row in rows:
            for name in row.keys() - {"step"}:
                assert found[int(row["step"]), name] == pytest.approx(float(row[name]))
        steps = {step for step, name in found if name == "step/loss"}
        assert steps == set(range(1, int(rows[-1]["step"]) + 1)), "log_every=1"
        assert {"step/lr", "step/loss/box", "step/images_per_second"} <= {name for _, name in found}
    assert services.closed == list(NAMES)


def test_a_resumed_run_goes_on_in_its_logs(services, tmp_path):
    fabric = Fabric(accelerator="cpu", devices=1)
    (tmp_path / "config.yaml").write_text("epochs: 1\n")
    train(fabric, tmp_path, replace(SETTINGS, epochs=1, loggers=NAMES))
    assert services.opened == [
        ("tensorboard", None),
        ("wandb", "ladle", tmp_path.name, None, "allow", {"epochs": 1}),
        ("mlflow", "of ladle", tmp_path.name),
        ("param", "m1", "epochs", 1),
    ]
    services.opened.clear()
    train(fabric, tmp_path, replace(SETTINGS, epochs=2, loggers=NAMES), resume=True)
    done = int(read_rows(tmp_path)[0]["step"])
    assert services.opened == [
        ("tensorboard", done + 1),
        ("wandb", "ladle", tmp_path.name, "w1", "allow", {"epochs": 1}),
        ("mlflow again", "m1", "RUNNING"),
    ]


def test_a_service_that_fails_is_left_out_and_named(services, tmp_path):
    told = []
    loggers = open_loggers(("wandb", "tensorboard"), tmp_path, 0, told.append)
    loggers.log(1, {"loss": 0.5, "ap": float("nan")})
    services.fails = True
    loggers.log(2, {"loss": 0.25})
    services.fails = False
    loggers.log(3, {"loss": 0.125})
    assert services.logged("wandb") == services.logged("tensorboard") == {(1, "loss"): 0.5}
    assert told == [
        f"--loggers {name}: it gets no more values, as it failed: ConnectionError: no route to host"
        for name in ("wandb", "tensorboard")
    ]


def test_a_service_that_cannot_be_opened_stops_the_run_at_its_start(services, tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(UserError, match=r"--loggers wandb: it cannot be opened \(PermissionError: no API key\)"):
        open_loggers(("tensorboard", "wandb"), tmp_path, 0, print)
    assert services.closed == ["tensorboard"]


def test_other_ranks_open_nothing(services, tmp_path, monkeypatch):
    fabric = Fabric(accelerator="cpu", devices=1)
    run = prepare(fabric, Toy(), ToyLoader(), replace(SETTINGS, loggers=NAMES), tmp_path)
    monkeypatch.setattr(Fabric, "is_global_zero", property(lambda self: False))
    with Reporter(run, 0, 0):
        pass
    assert services.opened == []
