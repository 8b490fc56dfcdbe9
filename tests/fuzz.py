#!/usr/bin/env python
"""Coverage-guided fuzzing of what reads files and messages of unknown origin, for as long as one likes.

    pip install -e '.[fuzz]'
    python tests/fuzz.py sound --corpus corpus -max_total_time=1800

The first argument is what is fuzzed; what follows the corpus is libFuzzer's. Only UserError and a few plain refusals
may come out; anything else stops it, and the input is kept beside the corpus. `tests/test_fuzz.py` is the short form.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["degstalk_ns", "soundfile", "yaml", "websockets"]):
    import test_fuzz as short
    from test_plausibility import make_dataset

    from degstalk_ns.animation.camera_path import read_camera_path
    from degstalk_ns.audio.sound import load_sound
    from degstalk_ns.dataparsers.frame import read_frame
    from degstalk_ns.dataparsers.recording import read_recording
    from degstalk_ns.errors import UserError, errors_caught_outside
    from degstalk_ns.plugin.config_file import read_config_file
    from degstalk_ns.reading.arrays import npy_shape, read_npy, read_npz
    from degstalk_ns.reading.tensors import read_plain
    from degstalk_ns.viewer.access import _Flow, page_token, refusal

Target = tuple[list[bytes], Callable[[bytes], object]]


STRANGE = (
    None,
    True,
    -1,
    0,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "nan",
    "../x",
    [],
    {},
    [[]],
    {"": 0},
)
WORDS = (
    "!!python/object/apply:os.system [x]",
    "!!python/name:os.system",
    "&a *a",
    "[[[[",
    "{a: *b}",
    "1e999",
    "~",
    "?",
    "- -",
)


def _strange(content: bytes, whole: str) -> bytes:
    """A whole JSON text with some of its values exchanged, as the bytes say."""
    chosen = atheris.FuzzedDataProvider(content)
    root = json.loads(whole)
    for _ in range(chosen.ConsumeIntInRange(1, 4)):
        place: Any = root
        while True:
            key = chosen.PickValueInList(sorted(place) if isinstance(place, dict) else list(range(len(place))))
            if isinstance(place[key], dict | list) and place[key] and chosen.ConsumeIntInRange(0, 3):
                place = place[key]
                continue
            kind = chosen.ConsumeIntInRange(0, 4)
            if kind == 0:
                place[key] = chosen.ConsumeFloat()
            elif kind == 1:
                place[key] = chosen.ConsumeUnicodeNoSurrogates(12)
            elif kind == 2 and isinstance(place, dict):
                del place[key]
            else:
                place[key] = deepcopy(chosen.PickValueInList(list(STRANGE)))
            break
        if not root:
            break
    return json.dumps(root).encode()


def _strange_yaml(content: bytes, whole: str) -> bytes:
    """A whole YAML text with what follows some of its colons exchanged, as the bytes say."""
    chosen, lines = atheris.FuzzedDataProvider(content), whole.splitlines()
    for _ in range(chosen.ConsumeIntInRange(1, 4)):
        number = chosen.ConsumeIntInRange(0, len(lines) - 1)
        name, colon, _ = lines[number].partition(": ")
        word = chosen.PickValueInList(list(WORDS)) if chosen.ConsumeBool() else chosen.ConsumeUnicodeNoSurrogates(12)
        lines[number] = f"{name}{colon}{word}"
    return "\n".join(lines).encode()


def sound(folder: Path) -> Target:
    seeds = [short._sound(kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF")]
    return seeds, lambda content: load_sound(content, name="a")


def dataset(folder: Path) -> Target:
    root = make_dataset(folder / "me", frames=12)
    names = (*short.FILES, "teeth_mask/0.npy", "torso_imgs/0.png", "transforms_val.json", "landmarks.npz", "bc.jpg")
    whole = {name: (root / name).read_bytes() for name in names if (root / name).exists()}
    files = list(whole)

    def read(content: bytes) -> None:
        name = files[content[0] % len(files)] if content else files[0]
        try:
            strange = name.endswith(".json") and len(content) > 1 and content[1] & 1
            found = _strange(content[2:], whole[name].decode()) if strange else content[1:]
            (root / name).write_bytes(found)
            read_frame(read_recording(root), 0, ("image", "masks", "teeth", "plate", "torso_image"))
        finally:
            (root / name).write_bytes(whole[name])

    return [bytes([number]) + whole[name] for number, name in enumerate(files)], read


def config(folder: Path) -> Target:
    path = folder / "config.yml"

    def read(content: bytes) -> None:
        strange = content and content[0] & 1
        path.write_bytes(_strange_yaml(content[1:], short.CONFIG) if strange else content)
        read_config_file(path, "expected a config")

    return [short.CONFIG.encode()], read


def path(folder: Path) -> Target:
    file = folder / "path.json"

    def read(content: bytes) -> None:
        strange = content and content[0] & 1
        file.write_bytes(_strange(content[1:], json.dumps(short.PATH)) if strange else content)
        read_camera_path(file).at(3)

    return [json.dumps(short.PATH).encode()], read


def message(folder: Path) -> Target:
    """A stream of messages, its first byte the length of each, and as the address and the headers of a request."""

    def read(content: bytes) -> None:
        flow, size = _Flow(), 1 + (content[0] if content else 0)
        for start in range(1, len(content), size):
            flow.unwanted(content[start : start + size])
        text = content.decode("latin-1")
        flow.unwanted(text)
        head, _, rest = text.partition("\n")
        try:
            refusal(f"/{head}", {"Host": rest, "Origin": rest, "Cookie": rest}, {"studio"}, (), page_token())
        except (ValueError, LookupError):  # answered as nonsense
            return

    packed = short._packed({"type": "GuiUpdateMessage", "id": "a", "updates": {"value": 1.5}})
    return [bytes([len(packed) - 1]) + packed, b"\x01/\nlocalhost:7007"], read


def arrays(folder: Path) -> Target:
    file = folder / "a"
    readers: list[tuple[str, bytes, Callable[[Path], object]]] = [
        (".npy", short._array(), lambda path: (read_npy(path, "a", "b"), npy_shape(path, "a", "b"))),
        (".npz", short._arrays(False), lambda path: read_npz(path, ("a", "b"), "c")),
        (".npz", short._arrays(True), lambda path: read_npz(path, ("a", "b"), "c")),
        (".pt", short._torch_file(), lambda path: read_plain(path, "a")),
    ]

    def read(content: bytes) -> None:
        suffix, _, reader = readers[content[0] % len(readers) if content else 0]
        place = file.with_suffix(suffix)
        place.write_bytes(content[1:])
        reader(place)

    return [bytes([number]) + whole for number, (_, whole, _) in enumerate(readers)], read


TARGETS = {target.__name__: target for target in (sound, dataset, config, path, message, arrays)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--corpus", type=Path, required=True)
    given, more = parser.parse_known_args()
    warnings.simplefilter("ignore")
    logging.disable()
    corpus: Path = given.corpus / given.target
    corpus.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    seeds, read = TARGETS[given.target](scratch)
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(seed)

    def one(content: bytes) -> None:
        try:
            with errors_caught_outside():
                read(content)
        except UserError as error:
            if "\n" in str(error).strip():
                raise RuntimeError("more than one line") from error

    arguments = ["-max_len=65536", "-timeout=60", "-rss_limit_mb=4096", f"-artifact_prefix={corpus}-", *more]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
