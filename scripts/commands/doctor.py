"""`degstalk doctor`: what this machine and installation have, what is missing, and what that costs.

Its lines are made to be pasted into a bug report: they hold no path and no name of a user. Nothing is downloaded.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, Literal

from packaging.requirements import Requirement
from rich.console import Console

from degstalk_ns import __version__, model_files
from degstalk_ns.errors import UserError

Mark = Literal["ok", "note", "bad"]
_SHOWN: Final[dict[Mark, str]] = {"ok": " ok ", "note": "note", "bad": "BAD "}
_GIGABYTE: Final[int] = 1 << 30
_LEAST_MEMORY: Final[int] = 4 * _GIGABYTE
"""A training of `degstalk` at 512 x 512 holds 2.2 GB."""
_LEAST_DISK: Final[int] = 5 * _GIGABYTE
"""Ten minutes of video become a dataset of about 17 GB, a minute one of 2."""


@dataclass(frozen=True)
class Finding:
    """One line. A "note" costs something, which the line names; with a "bad" one the program does not work."""

    mark: Mark
    text: str


def command(fast: bool = False) -> None:
    """Say what this machine and installation have, what is missing, and what that costs.

    Paste the lines into a bug report; they hold no path and no name. Nothing is downloaded. The exit code is 1 if
    something does not work.

    Args:
        fast: Leave out what takes seconds: the kernels of the rasterizer, and nerfstudio.
    """
    console = Console(highlight=False)
    bad = 0
    checks: list[Callable[[], Iterator[Finding]]] = [_installation, _machine, _models, _media]
    for check in [*checks, *([] if fast else [_kernels, _plugin])]:
        for finding in check():
            bad += finding.mark == "bad"
            console.print(f"[{_SHOWN[finding.mark]}] {finding.text}", markup=False, soft_wrap=True)
    if bad:
        raise UserError(f"{bad} of these lines say BAD: what they name must be mended first")


def _installation() -> Iterator[Finding]:
    yield Finding("ok", f"degstalk-ns {__version__}, Python {platform.python_version()}, {platform.platform()}")
    there = []
    for requirement in map(Requirement, requires("degstalk-ns") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding("bad", f"{requirement.name} is not installed; pip install 'degstalk-ns' brings it")
            continue
        there.append(f"{requirement.name} {installed}")
        if not requirement.specifier.contains(installed, prereleases=True):
            yield Finding("bad", f"{requirement.name} {installed} is installed, and {requirement} is needed")
    yield Finding("ok", ", ".join(there))


def _machine() -> Iterator[Finding]:
    import psutil
    import torch

    from degstalk_ns.bench.machine import processor_name

    memory = psutil.virtual_memory()
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    yield Finding("ok", f"{processor_name()}, {threads}")
    enough = memory.total >= _LEAST_MEMORY
    size = f"{memory.total / _GIGABYTE:.1f} GB of memory, {memory.available / _GIGABYTE:.1f} free"
    yield Finding("ok" if enough else "note", size + ("" if enough else ": a training at 512 x 512 needs about 2.5"))
    free = psutil.disk_usage(str(Path.cwd())).free
    line = f"{free / _GIGABYTE:.0f} GB free on the disk of this folder"
    yield Finding("ok" if free >= _LEAST_DISK else "note", line + ("" if free >= _LEAST_DISK else ": a minute needs 2"))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding(
                "ok", f"{properties.name}, {properties.total_memory / _GIGABYTE:.0f} GB, CUDA {torch.version.cuda}"
            )
    else:
        yield Finding("note", "no CUDA device: everything runs on the CPU, by this program's own kernels")


def _models() -> Iterator[Finding]:
    from degstalk_ns.metrics.lpips import alexnet_path

    wanted = [(model, "degstalk process and LMD need it") for model in _MEDIAPIPE]
    for model, cost in wanted:
        yield _model(model, cost)
    own = os.environ.get(model_files.MODELS_VARIABLE)
    if own and (Path(own).expanduser() / "whisper-base").is_dir():
        yield Finding("ok", f"whisper-base: in ${model_files.MODELS_VARIABLE}")
    else:
        cost = "without it lips follow other voices less well"
        for file in model_files.whisper_files("base"):
            yield _model(file, cost)
    if alexnet_path().exists():
        yield Finding("ok", "AlexNet's weights for LPIPS: there")
    else:
        cost = "fetched when needed, or training goes without its perceptual losses"
        yield Finding("note", f"AlexNet's weights for LPIPS: not there yet ({cost})")


_MEDIAPIPE: Final = (model_files.FACE_LANDMARKER, model_files.SELFIE_SEGMENTER)


def _model(model: model_files.ModelFile, cost: str) -> Finding:
    try:
        found = model_files.present(model)
    except UserError:
        return Finding("bad", f"{model.name}: damaged, or another release; remove it, and it is fetched again")
    if found is None:
        return Finding("note", f"{model.name}: not there yet, fetched when needed ({cost})")
    own = os.environ.get(model_files.MODELS_VARIABLE)
    place = f"${model_files.MODELS_VARIABLE}" if own and found.is_relative_to(Path(own).expanduser()) else "the cache"
    return Finding("ok", f"{model.name}: in {place}, sha256 {model.sha256[:12]} as published")


def _media() -> Iterator[Finding]:
    import av

    for name, cost in (("libx264", "degstalk render cannot write videos"), ("aac", "videos have no sound")):
        try:
            av.codec.Codec(name, "w")
            yield Finding("ok", f"encoder {name}: there")
        except (av.error.FFmpegError, ValueError):
            yield Finding("bad", f"encoder {name}: missing from PyAV {av.__version__}: {cost}")
    from degstalk_ns.speech.espeak import espeak_availability

    silent = espeak_availability()
    yield Finding("note", f"{silent} (degstalk phonemes needs it)") if silent else Finding("ok", "espeak-ng: there")
    try:
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        yield Finding("bad", f"the folder for temporary files cannot be written to ({error.strerror})")


def _kernels() -> Iterator[Finding]:
    import torch

    from degstalk_ns.rasterization import rasterize

    one = torch.ones(1, 3)
    parts = (one * torch.tensor([0.0, 0.0, 2.0]), torch.ones(1, 4), 0.5 * one, torch.ones(1), one)
    K = torch.tensor([[[20.0, 0, 8], [0, 20.0, 8], [0, 0, 1]]])
    try:
        image, _, _ = rasterize(*parts, torch.eye(4)[None], K, 16, 16)
    except Exception as error:  # whatever keeps the compiler from its work
        yield Finding("bad", f"the rasterizer's kernels do not run: {' '.join(str(error).split())[:200]}")
        return
    works = abs(float(image[0, 8, 8, 0]) - 1.0) < 0.05
    text = "the rasterizer draws a Gaussian" if works else "the rasterizer draws something else than a Gaussian"
    yield Finding("ok" if works else "bad", text)


def _plugin() -> Iterator[Finding]:
    try:
        known = import_module("nerfstudio.configs.method_configs").all_methods
    except Exception as error:
        yield Finding("bad", f"nerfstudio cannot list its methods: {' '.join(str(error).split())[:200]}")
        return
    mine = [name for name in known if name.startswith(("degstalk", "talking-gaussian"))]
    if mine:
        yield Finding("ok", f"ns-train lists {', '.join(sorted(mine))}")
    else:
        yield Finding("bad", "ns-train does not list degstalk: reinstall degstalk-ns in the environment of nerfstudio")
