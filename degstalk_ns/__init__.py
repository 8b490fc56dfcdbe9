"""degstalk-ns: talking portraits by deformable Gaussian splatting with long hair kept intact, inside nerfstudio."""

__version__ = "0.1.0"
