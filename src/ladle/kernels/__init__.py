"""Triton kernels for CUDA devices, each with the same result as a function in plain operations.

The modules import Triton, so they are imported only when a tensor on such a device arrives; ``TRITON_INTERPRET=1`` runs
them on a CPU. :func:`ladle.device.fused` joins a kernel and its plain function. Floating-point contraction is switched
off and divisions are rounded to nearest, so that thresholds and ties are decided as by the plain functions.
"""
