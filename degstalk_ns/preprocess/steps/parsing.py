"""Region masks of one frame: head, hair, neck, torso, mouth interior, teeth and background.

MediaPipe's multiclass segmenter says what a pixel is made of, the landmarks say which part of the person it is. It must
not know files of a dataset, nor other frames than those it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.dataparsers.layout import PALETTE
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.plates.lengths import whole_pixels
from degstalk_ns.preprocess.record import formerly

HEAD, HAIR, NECK, TORSO, MOUTH, BACKGROUND = range(len(PALETTE))
"""Codes of the regions, in the order of ``layout.PALETTE``."""

_BACKGROUND, _HAIR, _BODY_SKIN, _FACE_SKIN, _CLOTHES, _OTHERS = range(6)
"""Classes of the multiclass selfie segmenter."""


OUTLINE_SAMPLES: Final[int] = 4
"""Samples per pixel, along each side, with which outlines are filled; see :func:`fill_polygon`. Origin: chosen for this
project."""
LIPS_SAMPLES: Final[int] = 8
"""Samples per pixel, along each side, for the outline between the lips, which is thinner. Origin: chosen for this
project."""
_SUBPIXEL_BITS: Final[int] = 4
"""Fractional bits of the coordinates given to OpenCV: sixteenths of a sample."""
_HALF_COVERED: Final[int] = 127
"""Coverage, 0 to 255, above which more than half of a pixel lies inside."""

Codes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ParsingConfig:
    """Options of the segmentation masks. Lengths and areas are fractions of the image or of the face, so they hold at
    any resolution; the values were chosen for this project on portraits of 512 x 512 pixels."""

    smoothing: float = 0.25
    """Weight of the previous and of the next frame when class probabilities are averaged over time; 0 turns smoothing
    off. The default halves the flicker of resting edges, and displaces an edge that jumps by a quarter of the jump."""
    chin_band: float = 0.02
    """Half width, in face heights, of the band around the landmark outline in which the segmentation network decides
    between face and neck instead of the landmarks."""
    island: float = 0.001
    """Area, as a fraction of the image, below which a connected component takes the class of the area around it."""
    others_overlap: float = 0.2
    """Fraction of an accessory that must lie inside the face outline for it to belong to the head class (glasses)."""
    beard_width: float = 0.8
    """Fraction of the width of the face outline within which hair below the nose is a beard, which belongs to the head
    class; further out it is long hair."""
    mouth_area: float = field(default=20 / 512**2, metadata=formerly(mouth_pixels=20))
    """Minimum area between the lips, as a fraction of the image, for the mouth interior to be refined by colour; 20
    pixels at 512 x 512. Origin: chosen for this project."""
    mouth_height: float = field(default=2 / 512, metadata=formerly())
    """Minimum height of an open mouth, as a fraction of the image height; 2 pixels at 512, and never less, because
    closed lips leave broken lines of single pixels. Origin: chosen for this project."""
    tooth_size: float = field(default=2 / 512, metadata=formerly())
    """Minimum side of a patch of teeth, as a fraction of the image height; 2 pixels at 512, and never less. Origin:
    chosen for this project."""
    lip_error: float = 0.006
    """Expected error of the inner lip landmarks, as a fraction of the image height; 3 pixels at 512. Within this
    distance colour decides."""
    cavity_lightness: float = 0.35
    """Lightness (CIE L*), as a fraction of the median lightness of the lips, below which a pixel belongs to the mouth
    cavity."""
    teeth_lightness: float = 0.6
    """Minimum lightness of teeth, as a fraction of the median lightness of the lips: teeth lie in shade, and the gap
    behind them is far darker."""
    teeth_redness: float = 3.0
    """Minimum difference, in CIE a* (8 bit), by which teeth are less red than the lips."""
    skin_reach: float = field(default=0.1, metadata=formerly())
    """Distance from the face outline, in face heights, within which a piece of face skin belongs to the head class.
    Origin: chosen for this project."""
    neck_strip: tuple[float, float] = field(default=(-0.25, 0.33), metadata=formerly())
    """Start and end, in face heights below the chin (negative values lie above it), of the strip in which body skin is
    taken for the neck. Origin: chosen for this project."""
    neck_share: float = field(default=0.02, metadata=formerly())
    """Minimum fraction of the body skin in that strip that a piece of it must hold to be neck: a collar or a chain
    parts the neck, and a hand beside it is not under the chin. Origin: chosen for this project."""

    def thinnest(self, height: int) -> tuple[int, int]:
        """Least height of an open mouth and least side of a patch of teeth in an image of ``height``, pixels."""
        return whole_pixels(self.mouth_height, height, 2), whole_pixels(self.tooth_size, height, 2)


@dataclass(frozen=True)
class SegmentedFrame:
    """A frame and what the segmenter says of it.

    Attributes:
        i: number of the frame in the video.
        frame: RGB [H, W, 3], 0..255.
        confidences: [256, 256, 6] probability of each class of the segmenter.
    """

    i: int
    frame: NDArray[np.uint8]
    confidences: NDArray[np.float32]


def with_neighbours(
    segmented: Iterator[SegmentedFrame],
) -> Iterator[tuple[SegmentedFrame | None, SegmentedFrame, SegmentedFrame | None]]:
    """Each frame with those right before and after it; None for a neighbour that is not among ``segmented``."""
    before: SegmentedFrame | None = None
    now: SegmentedFrame | None = None
    for after in segmented:
        if now is not None:
            yield before, now, after if after.i == now.i + 1 else None
            before = now if after.i == now.i + 1 else None
        now = after
    if now is not None:
        yield before, now, None


def smooth_confidences(
    before: NDArray[np.float32] | None,
    now: NDArray[np.float32],
    after: NDArray[np.float32] | None,
    config: ParsingConfig,
) -> NDArray[np.float32]:
    """Confidences [h, w, 6] of a frame, evened out with its neighbours' (None: there is none)."""
    total, weight = now, 1.0
    side = config.smoothing / max(1 - 2 * config.smoothing, 1e-6)
    for neighbour in (before, after):
        if neighbour is not None and side > 0:
            total = total + side * neighbour
            weight += side
    return (total / np.float32(weight)).astype(np.float32, copy=False)


def parse(
    confidences: NDArray[np.float32], points: NDArray[np.float32], mouth: Mask, config: ParsingConfig | None = None
) -> Codes:
    """Region codes of one frame.

    Args:
        confidences: [h, w, 6] probabilities of the segmenter's classes, any resolution.
        points: [478, 2 or more] landmarks, x and y in pixels of the frame (pixel centres at halves).
        mouth: bool [H, W], the mouth's interior from :func:`find_mouth`; it sets the size.

    Returns:
        uint8 [H, W]: ``HEAD`` ... ``BACKGROUND``.
    """
    config = config or ParsingConfig()
    height, width = mouth.shape
    # Interpolating probabilities before the decision gives smooth outlines; interpolating labels would give steps.
    full = cv2.resize(confidences, (width, height), interpolation=cv2.INTER_CUBIC)
    classes = full.argmax(-1).astype(np.uint8)
    face = points[:, :2].astype(np.float32)
    outline = face[list(lm.FACE_OVAL)]
    inside = fill_polygon(outline, height, width)
    down = face[lm.CHIN] - face[lm.FOREHEAD_TOP]
    face_height = float(np.linalg.norm(down))
    down = down / max(face_height, 1e-6)

    classes = _only_the_person(classes, inside)
    codes = np.select(
        [classes == _BACKGROUND, classes == _HAIR, classes == _FACE_SKIN, classes == _BODY_SKIN],
        [BACKGROUND, HAIR, HEAD, NECK],
        TORSO,
    ).astype(np.uint8)
    _place_others(codes, classes == _OTHERS, inside, config)
    _fix_chin_line(codes, face, inside, down, face_height, config)
    _beard_to_head(codes, face, inside, down, config)
    _split_skin(codes, face, inside, down, face_height, config)
    codes = _without_islands(codes, round(config.island * height * width))
    codes[mouth] = MOUTH
    return codes


def fill_polygon(polygon: NDArray[np.float32], height: int, width: int, samples: int = OUTLINE_SAMPLES) -> Mask:
    """bool [height, width]: pixels that lie inside ``polygon`` [K, 2] (pixels, x and y) by more than half.

    Drawn ``samples`` times finer, because a polygon that is thinner than a pixel (closed lips) must come out empty.
    """
    mask = np.zeros((height, width), bool)
    low = np.clip(np.floor(polygon.min(0)).astype(int) - 1, 0, (width, height))
    high = np.clip(np.ceil(polygon.max(0)).astype(int) + 2, 0, (width, height))
    columns, rows = int(high[0] - low[0]), int(high[1] - low[1])
    if columns <= 0 or rows <= 0:
        return mask
    fine = np.zeros((rows * samples, columns * samples), np.uint8)
    # fillPoly also draws the outline, half a fine pixel too wide on each side: little at four times the resolution.
    # Landmarks count from the image's corner (pixel centres at halves), OpenCV from the first pixel's centre.
    scaled = ((polygon - low) * samples - 0.5) * (1 << _SUBPIXEL_BITS)
    cv2.fillPoly(fine, [np.round(scaled).astype(np.int32)], (255,), shift=_SUBPIXEL_BITS)
    coarse = cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA)
    mask[low[1] : high[1], low[0] : high[0]] = coarse > _HALF_COVERED
    return mask


def find_mouth(
    frame: NDArray[np.uint8], points: NDArray[np.float32], config: ParsingConfig | None = None
) -> tuple[Mask, Mask]:
    """The mouth's interior (what is seen between the lips, with the teeth) and the teeth in it.

    The inner lip landmarks give its shape. Near their outline, where they are off by a few pixels, colour decides: much
    darker than the lips is the cavity; as light as the lips or lighter, but less red, is a tooth.

    Args:
        frame: RGB [H, W, 3] uint8.
        points: [478, 2 or more] landmarks, x and y in pixels of the frame (pixel centres at halves).

    Returns:
        interior, teeth: bool [H, W] each; teeth lie inside the interior, closed lips have neither.
    """
    config = config or ParsingConfig()
    height, width = frame.shape[:2]
    inner = fill_polygon(points[list(lm.LIPS_INNER), :2].astype(np.float32), height, width, LIPS_SAMPLES)
    least_height, least_tooth = config.thinnest(height)
    inner = _opened(inner, least_height, 1)
    teeth = np.zeros_like(inner)
    if inner.sum() < config.mouth_area * inner.size:
        return inner, teeth

    outer = fill_polygon(points[list(lm.LIPS_OUTER), :2].astype(np.float32), height, width) | inner
    x, y, w, h = cv2.boundingRect(outer.astype(np.uint8))
    window = (slice(y, y + h), slice(x, x + w))
    radius = max(round(config.lip_error * height), 1)
    near = cv2.dilate(inner[window].astype(np.uint8), np.ones((2 * radius + 1,) * 2, np.uint8)).astype(bool)
    lips = outer[window] & ~near
    # Only above and below an opening of some height: at the corners of the mouth there is skin, which is no redder.
    tall = _opened(inner[window], radius + 1, 1)
    reach = cv2.dilate(tall.astype(np.uint8), np.ones((2 * radius + 1, 1), np.uint8)).astype(bool) & outer[window]
    if not lips.any():
        return inner, teeth
    lab = cv2.cvtColor(frame[window], cv2.COLOR_RGB2LAB).astype(np.float32)
    light, red = lab[..., 0], lab[..., 1]
    lip_light, lip_red = float(np.median(light[lips])), float(np.median(red[lips]))
    cavity = light < config.cavity_lightness * lip_light
    tooth = (light > config.teeth_lightness * lip_light) & (red < lip_red - config.teeth_redness)
    tooth &= reach
    tooth = _opened(tooth, least_tooth, least_tooth)
    teeth[window] = tooth
    inner[window] |= tooth | (cavity & reach)
    return inner, teeth


def _opened(mask: Mask, rows: int, columns: int) -> Mask:
    """What of ``mask`` holds a window of ``rows`` x ``columns`` pixels.

    OpenCV's own opening shifts the mask by a pixel when a side of the window is even: its dilation does not mirror.
    """
    window = np.ones((rows, columns), np.uint8)
    kept = cv2.erode(mask.astype(np.uint8), window, anchor=(0, 0))
    return cv2.dilate(kept, window, anchor=(columns - 1, rows - 1)).astype(bool)


def to_colours(codes: Codes) -> NDArray[np.uint8]:
    """Codes [H, W] -> RGB [H, W, 3] in the dataset's palette."""
    return np.array(list(PALETTE.values()), np.uint8)[codes]


def from_colours(image: NDArray[np.uint8]) -> Codes:
    """RGB [H, W, 3] in the dataset's palette -> codes [H, W]; unknown colours are background."""
    codes = np.full(image.shape[:2], BACKGROUND, np.uint8)
    red, green, blue = (image[..., channel].astype(np.int32) for channel in range(3))
    key = red << 16 | green << 8 | blue  # one comparison a colour instead of three
    for code, (r, g, b) in enumerate(PALETTE.values()):
        codes[key == (r << 16 | g << 8 | b)] = code
    return codes


def _only_the_person(classes: Codes, inside: Mask) -> Codes:
    """Everything that does not hang together with the face (a second person, a poster) becomes background."""
    count, pieces = cv2.connectedComponents((classes != _BACKGROUND).astype(np.uint8))
    if count <= 2:
        return classes
    own = np.bincount(pieces[inside], minlength=count)
    own[0] = 0
    if own.sum():
        classes[(pieces != own.argmax()) & (pieces != 0)] = _BACKGROUND
    return classes


def _place_others(codes: Codes, others: Mask, inside: Mask, config: ParsingConfig) -> None:
    """Glasses to the head, a hat to the hair (both ride on the head), all else (microphone, brooch) to the torso."""
    if not others.any():
        return
    top_of_face = int(np.flatnonzero(inside.any(1))[0]) if inside.any() else 0
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(others.astype(np.uint8))
    overlaps = np.bincount(pieces[inside], minlength=count)
    for piece in range(1, count):
        area, top, tall = (
            stats[piece, cv2.CC_STAT_AREA],
            stats[piece, cv2.CC_STAT_TOP],
            stats[piece, cv2.CC_STAT_HEIGHT],
        )
        if overlaps[piece] >= config.others_overlap * area:
            codes[pieces == piece] = HEAD
        elif top + tall / 2 < top_of_face:
            codes[pieces == piece] = HAIR


def _fix_chin_line(
    codes: Codes,
    face: NDArray[np.float32],
    inside: Mask,
    down: NDArray[np.float32],
    face_height: float,
    config: ParsingConfig,
) -> None:
    """Skin inside the landmarks' outline is face, skin below it is neck; within a band the segmenter decides."""
    radius = max(round(config.chin_band * face_height), 1)
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown = cv2.dilate(inside.astype(np.uint8), window).astype(bool)
    core = cv2.erode(inside.astype(np.uint8), window).astype(bool)
    codes[core & (codes == NECK)] = HEAD
    # Ears, too, lie outside the outline: only what is below the angles of the jaw can be neck.
    below = _below(codes.shape, face[list(lm.JAW_ANGLES)].mean(0), down)
    codes[~grown & below & (codes == HEAD)] = NECK


def _beard_to_head(
    codes: Codes, face: NDArray[np.float32], inside: Mask, down: NDArray[np.float32], config: ParsingConfig
) -> None:
    """A beard moves with the jaw, so it must not stay behind on the plate with the hair."""
    hair = (codes == HAIR) & inside
    if not hair.any():
        return
    across = np.array([-down[1], down[0]], np.float32)
    outline = face[list(lm.FACE_OVAL)] @ across
    middle, half = (outline.max() + outline.min()) / 2, (outline.max() - outline.min()) / 2 * config.beard_width
    y, x = np.nonzero(hair & _below(codes.shape, face[lm.BELOW_NOSE], down))
    beard = np.abs(x * across[0] + y * across[1] - middle) < half
    codes[y[beard], x[beard]] = HEAD


def _split_skin(
    codes: Codes,
    face: NDArray[np.float32],
    inside: Mask,
    down: NDArray[np.float32],
    face_height: float,
    config: ParsingConfig,
) -> None:
    """Of the pieces of face skin those at the face are head, of the pieces of body skin the one under it is neck."""
    reach = np.ones((max(round(config.skin_reach * face_height), 1) * 2 + 1,) * 2, np.uint8)
    near = cv2.dilate(inside.astype(np.uint8), reach).astype(bool)
    count, pieces = cv2.connectedComponents((codes == HEAD).astype(np.uint8))
    touching = np.bincount(pieces[near], minlength=count) > 0
    codes[(codes == HEAD) & ~touching[pieces]] = TORSO

    count, pieces = cv2.connectedComponents((codes == NECK).astype(np.uint8))
    if count <= 1:
        return
    # The strip under the chin, as wide as the face.
    chin = face[lm.CHIN]
    across = np.array([-down[1], down[0]], np.float32)
    half = float(np.linalg.norm(face[lm.JAW_ANGLES[0]] - face[lm.JAW_ANGLES[1]])) / 2
    top, bottom = config.neck_strip
    corners = [
        chin + s * across * half + t * down * face_height for s, t in ((-1, top), (1, top), (1, bottom), (-1, bottom))
    ]
    strip = fill_polygon(np.array(corners, np.float32), *codes.shape)
    under = np.bincount(pieces[strip], minlength=count)
    under[0] = 0
    neck = under > config.neck_share * under.sum()
    codes[(codes == NECK) & ~neck[pieces]] = TORSO


def _below(shape: tuple[int, ...], point: NDArray[np.float32], down: NDArray[np.float32]) -> Mask:
    """bool [H, W]: pixels on the far side of the line through ``point`` across the direction ``down``."""
    rows = (np.arange(shape[0], dtype=np.float32) - point[1]) * down[1]
    columns = (np.arange(shape[1], dtype=np.float32) - point[0]) * down[0]
    return rows[:, None] + columns[None] > 0


def _without_islands(codes: Codes, smallest: int) -> Codes:
    """Give every connected piece of fewer than ``smallest`` pixels to the nearest larger one."""
    unknown = np.zeros(codes.shape, bool)
    for code in np.flatnonzero(np.bincount(codes.reshape(-1), minlength=len(PALETTE))):
        count, pieces, stats, _ = cv2.connectedComponentsWithStats((codes == code).astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < smallest
        small[0] = False
        if small.any() and count > 1:
            unknown |= small[pieces]
    if not unknown.any() or unknown.all():
        return codes
    _, nearest = cv2.distanceTransformWithLabels(
        unknown.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.zeros(int(nearest.max()) + 1, np.uint8)
    value_of[nearest[~unknown]] = codes[~unknown]
    return np.where(unknown, value_of[nearest], codes).astype(np.uint8)
