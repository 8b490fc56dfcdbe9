"""Makes a tiny, complete talking-head dataset: a coloured head of known shape that turns, talks and blinks.

The head is an ellipsoid that is traced pixel by pixel with the very cameras that are written, so that poses, masks,
landmarks and pictures agree exactly. It must not know how a dataset is read.
"""

from __future__ import annotations

import json
import wave
from pathlib import Path

import cv2
import numpy as np

from degstalk_ns.dataparsers.layout import PALETTE, Layout, train_count
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE

# Head coordinates: x to the image's right, y up, z out of the face; metres, as the poses.
HEAD = np.array([0.066, 0.085, 0.07])
HAIR = np.array([0.078, 0.094, 0.074])
MOUTH_CENTRE = np.array([0.0, -0.04])
MOUTH_HALF_WIDTH = 0.022
MOUTH_HALF_HEIGHT = 0.016
LIP = 0.007
EYES = np.array([[-0.024, 0.018], [0.024, 0.018]])
EYE_HALF = np.array([0.013, 0.008])
HAIRLINE = 0.05
DISTANCE = 0.7
AUDIO_SHAPES = {"mel": (16, 64), "ds": (16, 29), "hu": (2, 1024)}


def _opening(frames: int, rng: np.random.Generator) -> np.ndarray:
    """[frames] 0 (closed) .. 1: syllables of changing strength."""
    t = np.arange(frames) / FRAME_RATE
    phase = rng.uniform(0, 2 * np.pi, 2)
    wave_ = 0.5 + 0.5 * np.sin(2 * np.pi * 3.1 * t + phase[0])
    return np.clip(wave_ * (0.65 + 0.35 * np.sin(2 * np.pi * 0.9 * t + phase[1])), 0, 1)


def _blink(frames: int) -> np.ndarray:
    """[frames] 0 (open) .. 1 (closed): a blink every 10 frames."""
    return np.clip(1.0 - np.abs(np.arange(frames) % 10 - 5) / 2, 0, 1)


def _pose(i: int, frames: int) -> np.ndarray:
    """Camera to world [4, 4], OpenGL axes: the head turns and nods slowly before a fixed camera."""
    yaw = 0.22 * np.sin(2 * np.pi * i / max(frames, 16))
    nod = 0.06 * np.cos(2 * np.pi * 1.5 * i / max(frames, 16))
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]])
    rotation = (turn @ tilt).T
    c2w = np.eye(4)
    c2w[:3, :3] = rotation
    c2w[:3, 3] = rotation @ np.array([0.0, 0.0, DISTANCE])
    return c2w


def _hit(origin: np.ndarray, rays: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First intersection with an ellipsoid: points [H, W, 3] in head coordinates, and where there is one [H, W]."""
    o, d = origin / radii, rays / radii
    a, b, c = (d * d).sum(-1), (d * o).sum(-1), (o * o).sum() - 1
    root = b * b - a * c
    depth = (-b - np.sqrt(np.maximum(root, 0))) / a
    return origin + depth[..., None] * rays, root > 0


def _on_head(xy: np.ndarray) -> np.ndarray:
    """Points [..., 3] on the front of the head above x, y [..., 2]."""
    inside = np.clip(1 - ((xy / HEAD[:2]) ** 2).sum(-1), 0, 1)
    return np.concatenate([xy, (HEAD[2] * np.sqrt(inside))[..., None]], -1)


def _ellipse(points: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    return (((points[..., :2] - centre) / np.maximum(half, 1e-6)) ** 2).sum(-1) < 1


def _landmarks(opening: float, blink: float) -> np.ndarray:
    """The 68 points in head coordinates, [68, 3]."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi * 1.05, np.pi * 1.95, 17)
    points[:17] = 0.93 * HEAD[:2] * np.stack([np.cos(angle), np.sin(angle)], 1)
    for k, side in ((17, -1), (22, 1)):
        x = np.linspace(0.04, 0.012, 5) if side < 0 else np.linspace(0.012, 0.04, 5)
        points[k : k + 5] = np.stack([side * x, np.full(5, 0.036)], 1)
    points[27:31] = np.stack([np.zeros(4), np.linspace(0.02, -0.008, 4)], 1)
    points[31:36] = np.stack([np.linspace(-0.01, 0.01, 5), np.full(5, -0.014)], 1)
    height = EYE_HALF[1] * (1 - 0.9 * blink)
    for k, centre in ((36, EYES[0]), (42, EYES[1])):
        x = EYE_HALF[0] * np.array([-1, -0.4, 0.4, 1, 0.4, -0.4])
        y = height * np.array([0, 0.9, 0.9, 0, -0.9, -0.9])
        points[k : k + 6] = centre + np.stack([x, y], 1)
    inner = np.array([MOUTH_HALF_WIDTH, MOUTH_HALF_HEIGHT * opening])
    outer = inner + LIP
    turn = np.pi - np.arange(12) * np.pi / 6
    points[48:60] = MOUTH_CENTRE + outer * np.stack([np.cos(turn), np.sin(turn)], 1)
    turn = np.pi - np.arange(8) * np.pi / 4
    points[60:68] = MOUTH_CENTRE + inner * np.stack([np.cos(turn), np.sin(turn)], 1)
    return _on_head(points)


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth texture, RGB uint8 [size, size, 3]."""
    coarse = rng.uniform(90, 210, (5, 5, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def _body(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGBA of torso and neck [size, size, 4], and their masks: they stand still, as in the family's datasets."""
    v, u = (np.mgrid[:size, :size] + 0.5) / size
    torso = (v > 0.86) & (np.abs(u - 0.5) < 0.16 + 1.6 * (v - 0.86))
    neck = (v > 0.6) & (v < 0.9) & (np.abs(u - 0.5) < 0.09)
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[torso] = [60, 60, 150, 255]
    rgba[..., 2] = np.where(torso, 120 + 80 * u, 0)
    rgba[neck] = [185, 130, 105, 255]
    return rgba, torso & ~neck, neck


def _head_picture(
    c2w: np.ndarray, focal: float, size: int, opening: float, blink: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Colours of head and hair (RGB 0..255 float [H, W, 3]) and masks head, hair, mouth, teeth."""
    v, u = np.mgrid[:size, :size] + 0.5
    local = np.stack([(u - size / 2) / focal, -(v - size / 2) / focal, -np.ones_like(u)], -1)
    rays, origin = local @ c2w[:3, :3].T, c2w[:3, 3]
    face, on_face = _hit(origin, rays, HEAD)
    shell, on_shell = _hit(origin, rays, HAIR)
    # Hair: the crown, and strands down both sides that also fill the gap beside the face.
    beside = (np.abs(shell[..., 0]) > 0.062) | ~on_face
    hair = on_shell & ((shell[..., 1] > HAIRLINE) | (beside & (shell[..., 1] > -0.06)))
    head = on_face & ~hair

    x, y, z = np.moveaxis(face, -1, 0)
    shade = 0.72 + 0.28 * np.clip(z / HEAD[2], 0, 1)
    colour = np.stack([205 + 14 * np.sin(90 * x), 150 + 14 * np.sin(110 * y), 125 + 10 * np.cos(70 * x)], -1)
    lips = _ellipse(face, MOUTH_CENTRE, np.array([MOUTH_HALF_WIDTH, MOUTH_HALF_HEIGHT * opening]) + LIP)
    colour[lips] = [190, 70, 80]
    for centre in EYES:
        half = EYE_HALF * [1, 1 - 0.9 * blink]
        colour[_ellipse(face, centre, half)] = [240, 240, 240]
        colour[_ellipse(face, centre, half * [0.45, 0.9])] = [40, 60, 90]
        colour[_ellipse(face, centre + np.array([0, 0.018]), np.array([0.014, 0.0035]))] = [70, 45, 30]
    colour[_ellipse(face, np.array([0, -0.012]), np.array([0.009, 0.006]))] = [185, 120, 100]
    colour *= shade[..., None]

    inner = np.array([MOUTH_HALF_WIDTH, MOUTH_HALF_HEIGHT * opening])
    interior = head & _ellipse(face, MOUTH_CENTRE, inner)
    teeth = interior & (y > MOUTH_CENTRE[1] + 0.35 * inner[1])
    colour[interior] = [95, 25, 30]
    colour[teeth] = [235, 230, 215]
    strands = 60 + 25 * np.sin(260 * shell[..., 0]) + 10 * np.sin(90 * shell[..., 1])
    hair_colour = np.stack([strands, 0.6 * strands, 0.35 * strands], -1)
    colour = np.where(hair[..., None], hair_colour, colour)
    return colour, {"head": head & ~interior, "hair": hair, "mouth": interior, "teeth": teeth}


def _audio_windows(opening: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """[T, L, C] float32 features that follow the opening of the mouth, at two feature vectors a frame."""
    length, channels = AUDIO_SHAPES[name]
    frames = len(opening)
    at = np.arange(frames)[:, None] + (np.arange(length) - (length - 1) / 2)[None] / 2
    energy = np.interp(at, np.arange(frames), opening, left=0, right=0)
    direction, bias = rng.normal(size=channels), 0.2 * rng.normal(size=channels)
    return (energy[..., None] * direction + bias).astype(np.float32)


def _write_wav(path: Path, opening: np.ndarray, rng: np.random.Generator) -> None:
    per_frame = int(SAMPLE_RATE / FRAME_RATE)
    samples = len(opening) * per_frame
    envelope = np.interp(np.arange(samples) / per_frame, np.arange(len(opening)) + 0.5, opening)
    t = np.arange(samples) / SAMPLE_RATE
    voice = sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 12)) + 0.3 * rng.normal(size=samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(0.25 * envelope * voice, -1, 1) * 32767).astype("<i2").tobytes())


def _write_action_units(path: Path, opening: np.ndarray, blink: np.ndarray, openface: bool) -> None:
    """Intensities 0..5. OpenFace puts other columns before them and a space after each comma."""
    names = [f"AU{number:02}_r" for number in (1, 2, 4, 5, 6, 7, 12, 25, 26, 45)]
    values = np.zeros((len(opening), len(names)))
    values[:, 5], values[:, 7], values[:, 8], values[:, 9] = blink, 3 * opening, 2 * opening, 2 * blink
    lead = ["frame", "face_id", "timestamp", "confidence", "success"] if openface else []
    lines = [(", " if openface else ",").join(lead + names)]
    for i, row in enumerate(values):
        before = [str(i + 1), "0", f"{i / FRAME_RATE:.3f}", "0.98", "1"] if openface else []
        lines.append((", " if openface else ",").join(before + [f"{value:.2f}" for value in row]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_dataset(
    root: Path, frames: int = 24, size: int = 64, seed: int = 0, audio: str = "mel", reference_style: bool = False
) -> Path:
    """Write a dataset of ``frames`` frames of ``size`` x ``size`` pixels; the same arguments give the same files.

    Args:
        root: folder to write, made where absent.
        audio: features to write: "mel", "ds" or "hu".
        reference_style: as the AD-NeRF family's scripts leave it: 3dmm.pt, OpenFace's au.csv, no plates in bg/.

    Returns:
        ``root``.
    """
    root = Path(root)
    layout = Layout(root)
    rng = np.random.default_rng(seed)
    for path in (layout.frame(0), layout.parsing(0), layout.teeth(0), layout.torso(0)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not reference_style:
        layout.plate(0).parent.mkdir(exist_ok=True)

    focal = 2.3 * size
    opening, blink = _opening(frames, rng), _blink(frames)
    clean = _background(size, rng)
    body, torso, neck = _body(size)
    behind = np.where(body[..., 3:] > 0, body[..., :3], clean)
    cv2.imwrite(str(layout.clean_plate), clean[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    entries = []
    for i in range(frames):
        c2w = _pose(i, frames)
        colour, masks = _head_picture(c2w, focal, size, opening[i], blink[i])
        face = masks["head"] | masks["mouth"]
        covered = face | masks["hair"]
        frame = np.where(covered[..., None], colour, behind).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(layout.frame(i)), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])

        parsing = np.empty((size, size, 3), np.uint8)
        parsing[:] = PALETTE["background"]
        parsing[torso], parsing[neck] = PALETTE["torso"], PALETTE["neck"]
        for name in ("head", "hair", "mouth"):
            parsing[masks[name]] = PALETTE[name]
        cv2.imwrite(str(layout.parsing(i)), parsing[..., ::-1])
        np.save(layout.teeth(i), masks["teeth"])
        cv2.imwrite(str(layout.torso(i)), cv2.cvtColor(body, cv2.COLOR_RGBA2BGRA))
        if not reference_style:
            cv2.imwrite(str(layout.plate(i)), np.where(face[..., None], behind, frame)[..., ::-1])

        camera = (_landmarks(opening[i], blink[i]) - c2w[:3, 3]) @ c2w[:3, :3]
        pixels = size / 2 + focal * camera[:, :2] * [1, -1] / -camera[:, 2:]
        layout.landmarks(i).write_text("".join(f"{x:.4f} {y:.4f}\n" for x, y in pixels), encoding="utf-8")
        entries.append({"img_id": i, "aud_id": i, "transform_matrix": c2w.tolist()})

    split = train_count(frames)
    for name, part in (("train", entries[:split]), ("val", entries[split:])):
        content = {"focal_len": focal, "cx": size / 2, "cy": size / 2, "frames": part}
        layout.transforms(name).write_text(json.dumps(content), encoding="utf-8")

    np.save(layout.audio_features(audio), _audio_windows(opening, audio, rng))
    _write_wav(layout.audio, opening, rng)
    _write_action_units(layout.action_units, opening, blink, openface=reference_style)
    expression = np.zeros((frames, 50), np.float32)
    expression[:, 0], expression[:, 1] = opening, blink
    arrays = {
        "expression_params": expression,
        "jaw_params": np.stack([0.3 * opening, 0 * opening, 0 * opening], 1).astype(np.float32),
        "eyelid_params": np.stack([blink, blink], 1).astype(np.float32),
    }
    if reference_style:
        import torch

        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        torch.save({**tensors, "shape_params": torch.zeros(frames, 300)}, layout.face_model_pt)
    else:
        np.savez(layout.face_model_npz, expression_names=np.array([f"e{k}" for k in range(50)]), **arrays)
    return root
