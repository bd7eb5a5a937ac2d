"""A network traced, and written as ONNX or as PyTorch's ``.pt2``."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ladle.errors import UserError, first_line
from ladle.exporting.module import Exportable, Plan
from ladle.exporting.suppression import as_onnx, stays_of, suppress_operator

__all__ = ["onnx_bytes", "program_bytes", "rounded", "trace"]

_MOST_BATCH, _MOST_CELLS = 65_536, 256
_TRACED_BATCH = 2
"""Images at once while it is traced; with one the exporter would take it for a constant."""
_OPSET = 18
_LEAST_HALVED = 256
"""Constants of fewer numbers stay in 32 bits: there is nothing to save."""


def trace(network: Exportable) -> Any:
    """The network as a ``torch.export.ExportedProgram``."""
    plan, device = network.plan, network.detector.mean.device
    fixed = plan.dynamic == "none"
    side = plan.side if plan.dynamic != "sizes" else 96
    dtype = torch.uint8 if plan.images == "uint8" else torch.float32
    batch, width = (plan.batch, side) if fixed else (_TRACED_BATCH, side + (32 if plan.dynamic == "sizes" else 0))
    images = torch.zeros(batch, 3, side, width, dtype=dtype, device=device)
    sizes = torch.tensor([[side, width]], device=device).repeat(batch, 1)
    with _quiet(), torch.no_grad():
        try:
            return torch.export.export(network, (images, sizes), dynamic_shapes=_shapes(plan), strict=False)
        except Exception as error:  # of many kinds: the exporter's own and what the network raises under it
            raise _refusal(network, error) from error


def onnx_bytes(program: Any, plan: Plan, metadata: Mapping[str, str], outputs: Sequence[str] | None = None) -> bytes:
    """The program as the bytes of an ONNX file; ``outputs`` are named as the plan says, unless given."""
    import onnx

    with _quiet():
        try:
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=_OPSET,
                input_names=["images", "sizes"],
                output_names=list(plan.outputs if outputs is None else outputs),
                custom_translation_table={suppress_operator._opoverload: as_onnx()},
                verbose=False,
                # It would fold normalizations into weights, which then need 32 bits; runtimes do that when they load.
                optimize=not plan.half,
            )
        except Exception as error:
            raise UserError(f"the exporter of this PyTorch cannot write it as ONNX ({first_line(error)})") from error
    assert made is not None
    model = made.model_proto
    for node in model.graph.node:
        # Where on this machine the code lies that made the node.
        del node.metadata_props[:]
        node.doc_string = ""
    if plan.half:
        _halve(model)
    onnx.helper.set_model_props(model, dict(metadata))
    written: bytes = model.SerializeToString()
    return written


def program_bytes(program: Any, metadata: Mapping[str, str]) -> bytes:
    """The program as the bytes of a ``.pt2`` file; each value of ``metadata`` is a file in it."""
    stream = io.BytesIO()
    with _quiet():
        # Our own operator is not known where Ladle is not installed.
        program = program.run_decompositions({suppress_operator._opoverload: stays_of})
        torch.export.save(program, stream, extra_files={f"{key}.json": value for key, value in metadata.items()})
    return stream.getvalue()


@torch.no_grad()
def rounded(network: torch.nn.Module) -> None:
    """Round weights of more than one dimension to what 16 bits hold; raises UserError for one too large."""
    for name, weight in network.named_parameters():
        if weight.ndim < 2 or weight.numel() < _LEAST_HALVED:
            continue
        short = weight.half()
        if not short.isfinite().all():
            raise UserError(f"--half: {name} holds a weight beyond 65504, which 16 bits cannot store; leave out --half")
        weight.copy_(short.float())


def _shapes(plan: Plan) -> Any:
    if plan.dynamic == "none":
        return None
    batch = torch.export.Dim("batch", min=1, max=_MOST_BATCH)
    if plan.dynamic == "batch":
        return {0: batch}, {0: batch}
    rows, columns = (torch.export.Dim(name, min=1, max=_MOST_CELLS) for name in ("rows", "columns"))
    return {0: batch, 2: 32 * rows, 3: 32 * columns}, {0: batch}


def _refusal(network: Exportable, error: Exception) -> UserError:
    plan, name = network.plan, network.detector.spec.name
    fewer = {"sizes": "; --dynamic batch may do", "batch": "; --dynamic none may do", "none": ""}[plan.dynamic]
    return UserError(f"{name} cannot be traced with --dynamic {plan.dynamic} ({first_line(error)}){fewer}")


def _halve(model: Any) -> None:
    """Store constants that 16 bits hold exactly in 16 bits; the file casts them back, which a runtime does once."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            short = values.astype(np.float16)
        if values.size < _LEAST_HALVED or not (short == values).all():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(short, f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}.float", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks on their own internals to themselves, and shape checks out of what is traced."""
    from jaxtyping import config

    before, logger = config.jaxtyping_disable, logging.getLogger("torch.onnx")
    level = logger.level
    # A check of a shape would have the exporter take that shape for a constant.
    config.update("jaxtyping_disable", True)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.update("jaxtyping_disable", before)
        logger.setLevel(level)
