"""A recipe on several nodes: the first runs it, the others lend their devices; resuming with other devices."""

from dataclasses import replace

import pytest

from ladle import engine
from ladle.engine.nodes import Node
from ladle.errors import UserError
from ladle.recipes import Run
from ladle.recipes.jobs import Job
from ladle.recipes.nodes import connected_nodes, on_all_nodes
from tests.recipes.tiny import RUN


class Connection:
    """Stands in for the network."""

    def __init__(self, node):
        self.node, self.finished = node, []

    def serve(self, devices):
        return f"the result of the first node, with {devices} devices lent"

    def finish(self, result):
        self.finished.append(result)


@pytest.fixture
def connected(monkeypatch):
    """Make this process a node of two; returns the connection."""

    def connect(rank):
        connection = Connection(Node(rank, 2, "a", 1))
        monkeypatch.setattr(engine, "this_node", lambda count: connection.node)
        monkeypatch.setattr(engine, "Nodes", lambda node: connection)
        return connection

    return connect


ALONE = Run()


@on_all_nodes
def recipe(name, run=ALONE):
    if name == "bad":
        raise UserError("no data")
    return name, connected_nodes()


def test_one_node_is_a_plain_call():
    assert recipe("x") == ("x", None)


def test_the_first_node_runs_the_recipe_and_ends_the_others(connected):
    connection = connected(0)
    result = recipe("x", Run(nodes=2))
    assert result == ("x", connection)
    assert connection.finished == [result]
    assert connected_nodes() is None


def test_an_error_of_the_first_node_ends_the_others(connected):
    connection = connected(0)
    with pytest.raises(UserError, match="no data"):
        recipe("bad", run=Run(nodes=2))
    assert [str(error) for error in connection.finished] == ["no data"]


def test_another_node_lends_its_devices(connected):
    connected(1)
    assert recipe("bad", Run(nodes=2, devices=3)) == "the result of the first node, with 3 devices lent"


JOB = Job("train", "scenes", "paa-tiny", "folder", replace(RUN, batch=4, devices=2))


@pytest.mark.parametrize(
    "asked", [{"batch": 8, "devices": 1}, {"batch": 2, "nodes": 2}, {"devices": 1, "nodes": 2}, {"nodes": 1}, {}]
)
def test_a_run_goes_on_with_other_devices_and_as_many_images_a_step(asked):
    changed = JOB.changed(asked).run
    assert changed == replace(JOB.run, **asked)
    assert changed.batch_size * changed.world == 8


@pytest.mark.parametrize("asked", [{"devices": 4}, {"nodes": 2}, {"batch": 4, "devices": 1}])
def test_another_number_of_images_a_step_is_refused(asked):
    with pytest.raises(UserError, match="expected the 8 images of a step that the run began with") as error:
        JOB.changed(asked)
    assert "\n" not in str(error.value)


def test_another_batch_alone_is_refused_as_ever():
    with pytest.raises(UserError, match="cannot change --batch 8"):
        JOB.changed({"batch": 8})
