"""The outputs of one frame by name, each computed when it is first read: most readers want the image alone.

It must not know cameras of nerfstudio, nor training.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from degstalk_ns.animation.frames import Portrait, backdrop
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.renderer import over_plate
from degstalk_ns.errors import one_line_errors
from degstalk_ns.metrics.frames import FrameMetrics
from degstalk_ns.metrics.image import psnr
from degstalk_ns.training.objective import FrameTarget


class Lazy(MutableMapping[str, Any]):
    """A mapping of results that knows its names at once and computes each value when it is first read.

    Args:
        ways: name -> function of this mapping that computes the value. It is handed the mapping and need not hold it: a
            frame that nobody reads any more is gone at once, without waiting for the garbage collector.
        hidden: names that can be read but are not listed: what several others have in common.
    """

    def __init__(self, ways: Mapping[str, Callable[[Lazy], Any]], hidden: Collection[str] = ()) -> None:
        self._ways = dict(ways)
        self._hidden = frozenset(hidden)
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._ways[name](self)
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._ways[name] = lambda _: value
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._ways[name]
        self._values.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._ways and name not in self._hidden

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._ways if name not in self._hidden)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def frame_outputs(portrait: Portrait, view: View, row: int, conditions: Conditions) -> Lazy:
    """The outputs of one frame that nerfstudio's programs can read; images [H, W, 1 or 3] float32 in 0..1, depth in
    metres.

    Args:
        row: of the recording, whose plate lies behind the head where it fits ``view``.
    """
    fits = portrait.frames.fits(view, row)

    def layer(name: str, limit: bool = False) -> Callable[[Lazy], Tensor]:
        def read(outputs: Lazy) -> Tensor:
            value: Tensor = operator.attrgetter(name)(outputs["layers"])
            return value.clamp(0.0, 1.0) if limit else value

        return read

    @one_line_errors()  # a file is read when the picture is
    def behind(_: Lazy) -> Tensor:
        return backdrop(portrait, view, row).float() / 255.0

    return Lazy(
        {
            "regions": lambda _: portrait.regions(view, conditions),
            "layers": lambda outputs: portrait.compose(view, conditions, outputs["behind"]),
            "rgb": lambda outputs: over_plate(outputs["regions"], outputs["behind"]),
            "accumulation": lambda outputs: (
                torch.ones_like(outputs["rgb"][..., :1]) if fits else outputs["regions"].covered
            ),
            "depth": layer("depth"),
            "face": layer("face.colour", limit=True),
            "mouth": layer("mouth.colour", limit=True),
            "face_alpha": layer("face.alpha"),
            "mouth_alpha": layer("mouth.alpha"),
            "audio_attention": layer("audio_attention"),
            "expression_attention": layer("expression_attention"),
            "behind": behind,
            "plate": lambda outputs: outputs["behind"][..., :3],
        },
        hidden=("regions", "layers", "behind"),
    )


def image_metrics(measure: FrameMetrics, image: Tensor, target: FrameTarget, head: Tensor) -> dict[str, float]:
    """Metrics of a picture [H, W, 3]: whole, face (``psnr_face``) and hair (``psnr_hair``) alone, and the border of the
    ``head`` (bool [H, W]), each as far as there is any."""
    truth = target.image
    regions = {"psnr_face": target.face_region | target.mouth_region, "psnr_hair": target.hair}
    inside = {name: psnr(image, truth, mask) for name, mask in regions.items()}
    metrics = measure(image, truth) | {name: value for name, value in inside.items() if value is not None}
    return metrics | measure.of_face(image, truth, head, target.hair.cpu())


def evaluation_images(outputs: Mapping[str, Tensor], target: FrameTarget) -> dict[str, Tensor]:
    """Images of one evaluation frame for inspection, [H, W or 2 W, 3] in 0..1: recorded frame beside render, layers,
    masks."""
    attention = torch.cat([outputs["audio_attention"], outputs["expression_attention"]], 1)
    return {
        "composition": torch.cat([target.image, outputs["rgb"]], 1),
        "face": outputs["face"],
        "mouth": outputs["mouth"],
        "plate": outputs["plate"],
        "masks": torch.stack([target.face_region, target.mouth_region, target.hair], -1).float(),
        "attention": (attention / attention.amax().clamp_min(1e-6)).expand(-1, -1, 3),
    }
