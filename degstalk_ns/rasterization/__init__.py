"""Rendering Gaussians to images: one function, :func:`rasterize`, and the backends behind it (PyTorch, Numba, CUDA).

It must not know what the Gaussians depict.
"""

from degstalk_ns.rasterization.api import Backend, rasterize, spherical_harmonics

__all__ = ["Backend", "rasterize", "spherical_harmonics"]
