"""One frame of a dataset: its picture, masks and plates, each read from its file when it is first asked for.

It must not know nerfstudio, the model, nor how any of the files is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.dataparsers.layout import PALETTE, RGB, Layout, remedy
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.plausibility import check_masks_fit
from degstalk_ns.dataparsers.transforms import FrameTable
from degstalk_ns.errors import UserError
from degstalk_ns.files import whole_picture
from degstalk_ns.plates.build import frame_plate, freed_plate, torso_plate
from degstalk_ns.plates.hair import with_hair_in_front
from degstalk_ns.reading.access import refuse_unreadable
from degstalk_ns.reading.arrays import read_npy

if TYPE_CHECKING:
    from degstalk_ns.dataparsers.recording import Recording

_Bytes = NDArray[np.uint8]
_Mask = NDArray[np.bool_]


MOST_PIXELS: Final[int] = 8192 * 8192
"""Pixels of a picture: one that says it has more is refused before it is decoded."""
FRAME_PARTS: Final[tuple[str, ...]] = ("image", "masks", "teeth", "plate")


class FrameData:
    """One frame. Each part is read from its file when it is first asked for, and kept.

    Masks are bool [H, W]. ``head`` (skin of the face, without mouth interior and hair), ``hair``, ``neck``, ``torso``,
    ``mouth`` and ``background`` are disjoint; ``teeth`` may overlap any of them. They are what was recorded;
    ``shown_head`` and ``hair_behind`` are what the avatar makes of them (:attr:`ReadOptions.hair_in_head`).

    Every access raises :class:`~degstalk_ns.errors.UserError` where a file is missing, unreadable or of another size.
    """

    def __init__(self, recording: Recording, img_id: int) -> None:
        self.recording = recording
        self.img_id = img_id

    @property
    def _layout(self) -> Layout:
        return self.recording.layout

    @property
    def _full_size(self) -> tuple[int, int]:
        """Height and width on disk."""
        factor = self.recording.options.downscale
        return self.recording.height * factor, self.recording.width * factor

    def _shrunk(self, picture: _Bytes, interpolation: int = cv2.INTER_AREA) -> _Bytes:
        if self.recording.options.downscale == 1:
            return picture
        size = (self.recording.width, self.recording.height)
        return np.asarray(cv2.resize(picture, size, interpolation=interpolation), np.uint8)

    def _full_image(self) -> _Bytes:
        return read_picture(self._layout.frame(self.img_id), 3, self._full_size, self._layout.root)

    def _full_parsing(self) -> _Bytes:
        return read_picture(self._layout.parsing(self.img_id), 3, self._full_size, self._layout.root)

    def _full_mask(self, *regions: str) -> _Mask:
        """Pixels of any of the palette's ``regions``, at the size on disk."""
        codes = _codes(self._full_parsing())
        return np.isin(codes, [_code(PALETTE[name]) for name in regions])

    def _full_clean(self) -> _Bytes:
        return read_picture(self._layout.clean_plate, 3, self._full_size, self._layout.root)

    def _full_torso(self) -> _Bytes:
        return read_picture(self._layout.torso(self.img_id), 4, self._full_size, self._layout.root)

    @cached_property
    def image(self) -> _Bytes:
        """RGB frame, uint8 [H, W, 3]."""
        return self._shrunk(self._full_image())

    @cached_property
    def masks(self) -> dict[str, _Mask]:
        """Every region of the palette, bool [H, W] each."""
        codes = _codes(self._shrunk(self._full_parsing(), cv2.INTER_NEAREST))
        return {name: codes == _code(colour) for name, colour in PALETTE.items()}

    @property
    def head(self) -> _Mask:
        return self.masks["head"]

    @property
    def hair(self) -> _Mask:
        return self.masks["hair"]

    @property
    def shown_head(self) -> _Mask:
        """What Gaussians show of the head: its skin, and the hair where it counts as head."""
        return self.head | self.hair if self.recording.options.hair_in_head else self.head

    @property
    def hair_behind(self) -> _Mask:
        """Hair that belongs to the plate: none where it counts as head."""
        return np.zeros_like(self.hair) if self.recording.options.hair_in_head else self.hair

    @property
    def neck(self) -> _Mask:
        return self.masks["neck"]

    @property
    def torso(self) -> _Mask:
        return self.masks["torso"]

    @property
    def mouth(self) -> _Mask:
        return self.masks["mouth"]

    @property
    def background(self) -> _Mask:
        return self.masks["background"]

    @cached_property
    def teeth(self) -> _Mask:
        """bool [H, W]."""
        path = self._layout.teeth(self.img_id)
        teeth = np.squeeze(read_npy(path, "a bool array", remedy(self._layout.root)))
        if teeth.shape != self._full_size:
            raise _wrong_size(path, teeth.shape, self._full_size, self._layout.root)
        return self._shrunk((teeth != 0).astype(np.uint8), cv2.INTER_NEAREST).astype(bool)

    @cached_property
    def torso_image(self) -> _Bytes:
        """RGBA torso and neck, inpainted under the head, straight alpha, uint8 [H, W, 4]."""
        return self._shrunk(self._full_torso())

    @cached_property
    def plate(self) -> _Bytes:
        """What is behind the face in this frame (hair, torso, background), and how much of it is hair in front of the
        face, uint8 [H, W, 4].

        Both are from ``bg/<i>.png``, or the colours alone, as other programs write it. Where there is none, they are
        computed as DEGSTalk's hair preservation does from the frame, its masks, the torso image and the clean plate.
        The hair is that of :func:`degstalk_ns.plates.hair.with_hair_in_front`. Where hair counts as head, there is
        none: the torso image over the clean plate, RGB.
        """
        if self.recording.options.hair_in_head:
            return self.bare_plate
        stored = self._full_stored_plate()
        if stored is not None and stored.shape[2] == 4:
            return self._shrunk(stored)
        return self._with_hair(self._full_bare_plate(stored))

    @cached_property
    def bare_plate(self) -> _Bytes:
        """:attr:`plate` with no hair in front of the face, RGB uint8 [H, W, 3]: near the hairline its colours are the
        recorded ones, and not those of the hair alone."""
        return self._shrunk(self._full_bare_plate(self._full_stored_plate()))

    def _full_stored_plate(self) -> _Bytes | None:
        if self.recording.options.hair_in_head:
            return torso_plate(self._full_torso(), self._full_clean())
        path = self._layout.plate(self.img_id)
        return read_picture(path, None, self._full_size, self._layout.root) if path.exists() else None

    def _full_bare_plate(self, stored: _Bytes | None) -> _Bytes:
        if stored is not None and stored.shape[2] == 3:
            return stored
        head_region = self._full_mask("head", "mouth")
        return frame_plate(self._full_image(), head_region, self._full_torso(), self._full_clean())

    def _with_hair(self, colours: _Bytes) -> _Bytes:
        """A plate at the size on disk, with the hair that is in front of the face as its fourth channel."""
        masks = (self._full_mask("head", "mouth"), self._full_mask("hair"))
        return self._shrunk(with_hair_in_front(colours, self._full_image(), *masks))

    @cached_property
    def freed_plate(self) -> _Bytes:
        """The plate of this frame for a jaw that moves otherwise than it does here, uint8 [H, W, 4] like
        :attr:`plate`: see :func:`degstalk_ns.plates.build.freed_plate`."""
        if self.recording.options.hair_in_head:
            return self.bare_plate
        return self._with_hair(self._full_freed_plate())

    @cached_property
    def bare_freed_plate(self) -> _Bytes:
        """:attr:`freed_plate` with no hair in front of the face, RGB uint8 [H, W, 3]."""
        if self.recording.options.hair_in_head:
            return self.bare_plate
        return self._shrunk(self._full_freed_plate())

    def _full_freed_plate(self) -> _Bytes:
        masks = (self._full_mask(*names) for names in (("head", "mouth"), ("neck",), ("hair",)))
        return freed_plate(self._full_image(), *masks, self._full_torso(), self._full_clean())


def read_frame(recording: Recording, img_id: int, what: Sequence[str] = FRAME_PARTS) -> FrameData:
    """Read the parts ``what`` (of :data:`FRAME_PARTS`, or "torso_image") of frame ``img_id`` now.

    Parts not named are read when they are first asked for.

    Raises:
        UserError: a file is missing, unreadable or of another size than the frames.
    """
    frame = FrameData(recording, int(img_id))
    for part in what:
        if part not in (*FRAME_PARTS, "torso_image"):
            raise ValueError(f"a frame has the parts {', '.join((*FRAME_PARTS, 'torso_image'))}, not {part!r}")
        getattr(frame, part)
    return frame


def _wrong_size(path: Path, found: Sequence[int], expected: Sequence[int], root: Path) -> UserError:
    size = " x ".join(str(n) for n in reversed(list(found)[:2]))
    return UserError(
        f"{path}: is {size} pixels, expected {expected[1]} x {expected[0]} as the other frames; {remedy(root)}"
    )


def read_picture(path: Path, channels: int | None, size: tuple[int, int] | None, root: Path) -> _Bytes:
    """Decode a JPEG or PNG to RGB or RGBA uint8 [H, W, channels], None for as many as it has; ``size`` is the [H, W] it
    must have."""
    try:
        encoded = path.read_bytes()
    except OSError as error:
        refuse_unreadable(path)
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy(root)}") from None
    picture, stored = None, _stored_size(encoded)
    if stored is not None and size is not None and stored != size:
        raise _wrong_size(path, stored, size, root)
    if stored is not None and stored[0] * stored[1] > MOST_PIXELS:
        raise UserError(f"{path}: {stored[1]} x {stored[0]} pixels are too many for a frame; {remedy(root)}")
    if whole_picture(encoded):
        flags = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_UNCHANGED
        picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if picture is None or picture.dtype != np.uint8:
        raise UserError(f"{path}: not a readable 8-bit JPEG or PNG (cut short or damaged); {remedy(root)}")
    if channels == 4 and (picture.ndim != 3 or picture.shape[2] != 4):
        raise UserError(f"{path}: expected an RGBA image (with an alpha channel); {remedy(root)}")
    if channels is None and picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    if size is not None and picture.shape[:2] != size:
        raise _wrong_size(path, picture.shape, size, root)
    return np.asarray(
        cv2.cvtColor(picture, cv2.COLOR_BGR2RGB if picture.shape[2] == 3 else cv2.COLOR_BGRA2RGBA), np.uint8
    )


def _stored_size(encoded: bytes) -> tuple[int, int] | None:
    """Height and width that the header of a PNG or JPEG says; None where there is none that can be read."""
    if encoded.startswith(b"\x89PNG") and len(encoded) >= 24:
        return int.from_bytes(encoded[20:24], "big"), int.from_bytes(encoded[16:20], "big")
    place = 2
    while encoded.startswith(b"\xff\xd8") and place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker, length = encoded[place + 1], int.from_bytes(encoded[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the start of a frame
            return int.from_bytes(encoded[place + 5 : place + 7], "big"), int.from_bytes(
                encoded[place + 7 : place + 9], "big"
            )
        place += 2 + max(length, 2)
    return None


def frame_size(layout: Layout, img_id: int) -> tuple[int, int]:
    height, width = read_picture(layout.frame(img_id), 3, None, layout.root).shape[:2]
    return height, width


def _code(colour: RGB) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _codes(picture: _Bytes) -> NDArray[np.int32]:
    """One number a pixel, [H, W], so that a colour is one comparison."""
    wide = picture.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], np.int32)


def check_masks(
    layout: Layout, train: FrameTable, size: tuple[int, int], options: ReadOptions, landmarks: NDArray[np.float32]
) -> None:
    """Refuse masks of other colours or without a head or hair, or of another video than ``landmarks`` [T, 68, 2]."""
    places = np.unique(np.linspace(0, len(train) - 1, min(options.mask_samples, len(train))).round().astype(int))
    looked_at = [int(train.img_ids[place]) for place in places]
    hair, heads = 0, []
    for img_id in looked_at:
        path = layout.parsing(img_id)
        codes = _codes(read_picture(path, 3, size, layout.root))
        known = np.isin(codes, [_code(colour) for colour in PALETTE.values()]).mean()
        if known < options.palette_share:
            raise UserError(
                f"{path}: {1 - known:.0%} of its pixels have no colour of the palette "
                f"({', '.join(f'{name} {colour}' for name, colour in PALETTE.items())}); {remedy(layout.root)}"
            )
        if not (codes == _code(PALETTE["head"])).any():
            raise UserError(f"{path}: no pixel of the head, RGB {PALETTE['head']}; {remedy(layout.root)}")
        hair += int((codes == _code(PALETTE["hair"])).sum())
        heads.append(np.isin(codes, [_code(PALETTE[name]) for name in ("head", "mouth")]))
    check_masks_fit(heads, [landmarks[img_id] for img_id in looked_at], layout.parsing(0).parent, layout.root)
    if not hair and not options.allow_no_hair:
        raise UserError(
            f"{layout.parsing(0).parent}: none of the frames looked at ({', '.join(map(str, looked_at))}) has a hair "
            f"pixel, RGB {PALETTE['hair']}, and the method keeps hair from them; {remedy(layout.root)}, or set "
            "allow_no_hair for a bald person"
        )
