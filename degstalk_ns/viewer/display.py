"""What is shown of a composed frame: which layers, which output, and the recorded frame side by side or behind a wipe.

It must not know cameras, nerfstudio or viewers: a composition and images in, one picture out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.avatar.avatar import Composition
from degstalk_ns.avatar.compositing import alpha_over, compose

Output = Literal["rgb", "depth", "opacity", "audio attention", "expression attention", "error map"]
Truth = Literal["off", "side by side", "wipe"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
TRUTHS: tuple[Truth, ...] = get_args(Truth)

ERROR_FULL_SCALE: float = 0.25
"""Mean absolute difference of the colour channels (0 to 1) that gets the last colour of the error map. Chosen for this
project."""
DEPTH_AROUND: float = 0.12
"""Range of the depth picture in front of and behind the origin of the head, in metres: a head fits in 0.1."""
ATTENTION_SHARE: float = 0.999
"""Quantile of the attention in a frame that gets the last colour. Chosen for this project."""
ATTENTION_FADE: float = 0.98
"""Minimum ratio of the colour scales of two successive frames, so that colours do not flicker. Chosen for this
project."""
WIPE_EDGE: tuple[int, int, int] = (255, 211, 105)


@dataclass
class DisplayOptions:
    """What the user wants to see."""

    output: Output = "rgb"
    face: bool = True
    mouth: bool = True
    plate: bool = True
    truth: Truth = "off"
    wipe: float = 0.5
    """Position of the wipe, from 0 (left: only the render) to 1 (right: only the recorded frame)."""

    @property
    def plain(self) -> bool:
        """Whether it is the composed picture with all layers."""
        return self.output == "rgb" and self.face and self.mouth

    @property
    def needs_truth(self) -> bool:
        return self.truth != "off" or self.output == "error map"


@dataclass
class Display:
    """Turns compositions into pictures; remembers the scale of the attention pictures from frame to frame."""

    scales: dict[str, float] = field(default_factory=dict)

    def picture(
        self, frame: Composition, behind: Tensor, options: DisplayOptions, distance: float, truth: Tensor | None = None
    ) -> NDArray[np.uint8]:
        """One picture.

        Args:
            frame: the composition; its own ``rgb`` is not read.
            behind: [H, W, 3 or 4] in 0..1, the plate or a plain colour.
            distance: of the camera from the head's origin, metres.
            truth: [H, W, 3] in 0..1, the true frame; None where there is none, then it is left out.

        Returns:
            RGB uint8 [H, W, 3], or [H, 2 W, 3] with the truth beside it.
        """
        none = torch.zeros_like(frame.face.alpha)
        face_alpha = frame.face.alpha if options.face else none
        mouth_alpha = frame.mouth.alpha if options.mouth else none
        rgb = compose(
            frame.face.colour * float(options.face),
            face_alpha,
            frame.mouth.colour * float(options.mouth),
            mouth_alpha,
            behind,
        ).clamp(0, 1)
        covered = alpha_over(face_alpha, mouth_alpha)
        if options.output == "rgb":
            shown = bytes_of(rgb)
        elif options.output == "opacity":
            shown = bytes_of(covered.expand(-1, -1, 3))
        elif options.output == "depth":
            near = distance - DEPTH_AROUND
            shown = coloured(1 - (frame.depth - near) / (2 * DEPTH_AROUND), covered)
        elif options.output == "error map":
            error = torch.zeros_like(none) if truth is None else (rgb - truth).abs().mean(-1, keepdim=True)
            shown = coloured(error / ERROR_FULL_SCALE, torch.ones_like(error))
        else:
            values = frame.audio_attention if options.output == "audio attention" else frame.expression_attention
            shown = coloured(values * float(options.face) / self._scale(options.output, values), covered)
        return with_truth(shown, truth, options)

    def _scale(self, name: str, values: Tensor) -> float:
        flat = values.flatten()
        # A few thousand of the values tell the quantile as well as all.
        now = float(torch.quantile(flat[:: max(len(flat) // 20_000, 1)], ATTENTION_SHARE))
        self.scales[name] = max(now, self.scales.get(name, 0.0) * ATTENTION_FADE, 1e-6)
        return self.scales[name]


def with_truth(shown: NDArray[np.uint8], truth: Tensor | None, options: DisplayOptions) -> NDArray[np.uint8]:
    """A picture [H, W, 3] with the recorded frame to its right or behind a wipe from the left."""
    if truth is None or options.truth == "off":
        return shown
    true = bytes_of(truth)
    if options.truth == "side by side":
        return np.concatenate([shown, true], 1)
    edge = round(min(max(options.wipe, 0.0), 1.0) * shown.shape[1])
    wiped = np.concatenate([true[:, :edge], shown[:, edge:]], 1)
    if 0 < edge < shown.shape[1]:
        wiped[:, max(edge - 1, 0) : edge + 1] = WIPE_EDGE
    return wiped


def coloured(values: Tensor, covered: Tensor) -> NDArray[np.uint8]:
    """Values [H, W, 1] in 0..1 as colours from blue to red (Turbo), black where ``covered`` [H, W, 1] is 0."""
    levels = (values.clamp(0, 1) * 255).to(torch.uint8).cpu().numpy()
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
    return (colours * covered.cpu().numpy()).astype(np.uint8)


def bytes_of(image: Tensor) -> NDArray[np.uint8]:
    """[H, W, C] in 0..1 as bytes."""
    return (image * 255 + 0.5).to(torch.uint8).cpu().numpy()
