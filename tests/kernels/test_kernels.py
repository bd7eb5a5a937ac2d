"""The Triton kernels give what their plain functions give; run in Triton's interpreter, which needs no GPU."""

import json
import os
import subprocess
import sys

import pytest

from ladle.device import LAUNCHES, has_kernels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_kernels(), reason="without Triton 3.3 or newer no kernel is used"),
]


@pytest.fixture(scope="module")
def results():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.kernels.checks"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return {line["kernel"]: line for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", sorted(LAUNCHES))
def test_a_kernel_gives_what_its_plain_function_gives(results, name):
    assert results[name]["error"] is None, results[name]["error"]


@pytest.mark.parametrize("name", sorted(LAUNCHES))
def test_a_fused_operation_starts_as_many_kernels_as_it_declares(results, name):
    assert results[name]["launches"] == LAUNCHES[name]
