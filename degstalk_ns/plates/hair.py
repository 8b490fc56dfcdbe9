"""Hair in front of the face: a matte of the hair near the hairline, and the skin that the face is to have under it.

Equation 7 of DEGSTalk has hair as a layer of its own. Hair at the border of the face lies over a face that reaches
under it, strand by strand; a hard mask would cut strands off, and a face that is a little too high or too low would
show a second hairline or a slit. Images and masks in, images and masks out. It must not know Gaussians, fields, files
or nerfstudio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.plates.build import around, continue_over, dilate, erode
from degstalk_ns.plates.lengths import odd_window, whole_pixels


@dataclass(frozen=True)
class HairConfig:
    """How hair and face overlap. Lengths are fractions of the image height; all values were chosen for this project."""

    strands: float = 16 / 512
    """Distance from the border of the hair mask within which single strands are told from skin by their colour: 16
    pixels at 512, the width of a hairline that thins out."""
    contrast: float = 0.03
    """Difference in brightness (0 to 1) that an edge needs to be followed."""
    reach: float = 16 / 512
    """Distance from the hairline by which the face reaches under the hair in training: 16 pixels at 512."""
    shade: float = 10 / 512
    """Distance from the hairline up to which skin lies in the shadow of the hair, 10 pixels at 512. The face is to be
    as bright there as beyond; the shadow is part of what is in front, as it moves with the hair."""
    deepest: float = 1.0
    """Deepest shadow, as a natural logarithm: skin is made brighter by a factor of at most e."""
    few: float = 1e-3
    """Ridge of the fit of the shadow, in mean squares of a window: where few of its pixels are shaded, it draws the
    shadow to nothing."""
    fine: float = 0.3
    """Share of hair from which a pixel of the face shows fine hair, and is given the colour of skin; below it, in
    proportion."""
    rim: float = 8 / 512
    """Distance from the border of the face within which it may not cover what is behind it: 8 pixels at 512."""
    purest: float = 64.0
    """Most by which the colour of what is in front should differ from the mixture with skin that was recorded, 0 to
    255: where a fainter share would need more, as where the matte errs, the share is larger."""
    unseen: float = 4.0
    """Difference from the recorded frame, 0 to 255, that is not seen: without it, the highlights of the skin, beside
    which no colour is brighter, would be taken for what is in front."""
    border: float = 6 / 512
    """Depth in the hair mask at which hair is opaque, however bright: 6 pixels at 512."""
    solid: float = 0.1
    """Share of hair below which a pixel shows none, and up to 1 less which above it is all hair: what is left of a
    filter's halo."""


HAIR_LAYER: Final[HairConfig] = HairConfig()
"""The configuration for every dataset."""


def hair_matte(frame: NDArray[np.uint8], hair: NDArray[np.bool_], config: HairConfig = HAIR_LAYER) -> NDArray[np.uint8]:
    """Share of hair in every pixel of a recorded frame.

    The mask is refined by the brightness of the frame with a guided filter (He, Sun and Tang, "Guided image filtering",
    PAMI 2013): where an edge of the picture runs beside the border of the mask, the matte follows it.

    Args:
        frame: RGB [H, W, 3], 0..255.
        hair: bool [H, W].
        config: how the matte is made.

    Returns:
        uint8 [H, W]: 0 for none to 255 for hair alone; none farther from the mask than ``strands``.
    """
    return _matte(frame, hair, len(frame), config)


def _matte(frame: NDArray[np.uint8], hair: NDArray[np.bool_], height: int, config: HairConfig) -> NDArray[np.uint8]:
    """:func:`hair_matte` of a part of a picture that is ``height`` pixels high."""
    if not hair.any():
        return np.zeros(hair.shape, np.uint8)
    size = 2 * whole_pixels(config.strands, height) + 1
    guide = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    mask = hair.astype(np.float32)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(values, (size, size)), np.float32)

    mean_guide, mean_mask = mean(guide), mean(mask)
    slope = (mean(guide * mask) - mean_guide * mean_mask) / (mean(guide * guide) - mean_guide**2 + config.contrast**2)
    share = mean(slope) * guide + mean(mean_mask - slope * mean_guide)
    share = np.clip((share - config.solid) / (1.0 - 2.0 * config.solid), 0.0, 1.0)
    window = np.ones((odd_window(config.strands, height),) * 2, np.uint8)
    near = cv2.dilate(hair.astype(np.uint8), window).astype(bool)
    share[~near] = 0.0
    # Highlights of the hair are as bright as skin.
    depth = cv2.distanceTransform(hair.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    share = np.maximum(share, np.minimum(depth / max(config.border * height, 1.0), 1.0))
    return (share * 255.0 + 0.5).astype(np.uint8)


def skin_under_hair(
    frame: NDArray[np.uint8], head: NDArray[np.bool_], hair: NDArray[np.bool_], config: HairConfig = HAIR_LAYER
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The skin that the face is to have under the hair at its border: the nearest that is seen goes on.

    Args:
        frame: RGB [H, W, 3], 0..255.
        head, hair: bool [H, W]; ``head`` with the mouth.
        config: how far the face reaches.

    Returns:
        The frame with skin in place of hair near the hairline and of fine hair on the face, and without the shadow that
        the hair casts beside it; and where the face reaches under the hair, bool [H, W]: pixels of ``hair`` alone.
    """
    height, image, reached = len(frame), frame.copy(), np.zeros_like(hair)
    # What is farther from the head than this has no part in it.
    window = around(head, whole_pixels(config.reach + 3 * config.strands, height))
    if window is None or config.reach <= 0:
        return image, reached
    part, frame, head, hair = image[window], frame[window], head[window], hair[window]
    under = hair & dilate(head, odd_window(config.reach, height))
    share = _matte(frame, hair, height, config)
    away = cv2.distanceTransform((~hair).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5) / max(
        config.shade * height, 1.0
    )
    skin = head & (share <= 255 * config.fine) & (away > 1)
    if under.any() and skin.any():
        # Fine hair fades: an edge would be seen as a line.
        fine = np.where(under, 1.0, np.minimum(share / (255.0 * config.fine), 1.0))
        hidden = (under | head) & ((away <= 1) | (fine > 0))
        lifted = part.copy()
        continue_over(lifted, frame, skin, hidden, height)
        lit = _lit(frame, lifted, head & ~under & (away <= 1) & (fine < 1), away, height, config)
        weight = fine[hidden][:, None]
        part[hidden] = (lit[hidden] + weight * (lifted[hidden].astype(np.float32) - lit[hidden]) + 0.5).astype(np.uint8)
        reached[window] = under
    return image, reached


def _lit(
    frame: NDArray[np.uint8],
    lifted: NDArray[np.uint8],
    shaded: NDArray[np.bool_],
    away: NDArray[np.float32],
    height: int,
    config: HairConfig,
) -> NDArray[np.float32]:
    """The frame without the shadow of the hair on the skin beside it.

    The shadow is darkest at the hairline (``away`` 0) and nothing at its end (1): a parabola that is fitted to the
    ratio of the frame and of the skin beyond (``lifted``) around each pixel. What is narrower, such as the end of a
    brow, stays on the face. Nothing becomes brighter than the skin beyond.
    """
    size = 2 * whole_pixels(config.strands, height) + 1
    grey, beyond = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) + 1.0 for picture in (frame, lifted))
    ratio = np.log(grey / beyond)
    near = np.where(shaded, 1.0 - away, 0.0).astype(np.float32)
    square = near * near

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(values, (size, size)), np.float32)

    # Least squares of two terms.
    first, mixed, second = mean(square) + config.few, mean(square * near), mean(square * square) + config.few
    of_first, of_second = mean(near * ratio), mean(square * ratio)
    linear = of_first * second - of_second * mixed
    bent = of_second * first - of_first * mixed
    depth = (linear * near + bent * square) / (first * second - mixed * mixed)
    shadow = np.exp(np.clip(depth, -config.deepest, 0.0))
    return np.asarray(np.minimum(frame / shadow[..., None], np.maximum(frame, lifted)), np.float32)


def with_hair_in_front(
    plate: NDArray[np.uint8],
    frame: NDArray[np.uint8],
    head: NDArray[np.bool_],
    hair: NDArray[np.bool_],
    config: HairConfig = HAIR_LAYER,
) -> NDArray[np.uint8]:
    """A plate with the hair that lies in front of the face as its fourth channel.

    Near the hairline a recorded pixel is a mixture of hair, its shadow and skin. The skin is taken out of it: what
    remains is the colour of hair or shadow, so that it gives the recorded pixel again over the skin that the face is to
    have there.

    Args:
        plate, frame: RGB [H, W, 3], 0..255.
        head, hair: bool [H, W], as :func:`skin_under_hair` takes them.
        config: how hair and face overlap.

    Returns:
        uint8 [H, W, 4]: colours, and the share of each pixel that lies in front of the face.
    """
    matte = hair_matte(frame, hair, config)
    skin, under = skin_under_hair(frame, head, hair, config)
    result = np.dstack([plate, matte])
    # Only where the face is sure to be behind it, and not at its rim.
    covered = erode(head | under, odd_window(config.rim, len(frame)))
    mixed = (matte < 255) & (skin != frame).any(-1) & covered
    if mixed.any():
        recorded, behind = frame[mixed].astype(np.float32), skin[mixed].astype(np.float32)
        change = recorded - behind
        # The least share with which there is a colour that gives the recorded pixel over the skin.
        room = np.where(change > 0, 255.0 - behind, behind)
        size = np.maximum(np.abs(change) - config.unseen, 0.0)
        least = np.maximum(size / np.maximum(room, 1.0), size / (size + config.purest))
        # Rounded up, so that the colour stays within its limits.
        share = np.maximum(matte[mixed], np.ceil(255.0 * least.max(1)))
        share = np.minimum(share, 255.0)[:, None]
        colour = behind + 255.0 * change / np.maximum(share, 1.0)
        result[mixed, :3] = np.where(share > 0, np.clip(colour + 0.5, 0.0, 255.0), plate[mixed]).astype(np.uint8)
        result[mixed, 3] = share[:, 0]
    return result
