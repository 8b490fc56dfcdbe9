"""Files are whole or not there; pictures come back."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns import files
from degstalk_ns.errors import UserError
from degstalk_ns.files import PART_PREFIX, named_write_errors, only_one, reach_disk, write_bytes, write_whole


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def write(part: Path) -> None:
        assert part.parent == tmp_path and part.name.startswith(PART_PREFIX) and part.suffix == ".png"
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"

    write_whole(path, write)
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.json"
    write_bytes(path, b"old")

    def write(part: Path) -> None:
        part.write_bytes(b"ne")
        raise error

    with pytest.raises(type(error)):
        write_whole(path, write)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_pictures_come_back(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 4), dtype=np.uint8)
    files.write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(files.read_rgba(tmp_path / "a.png"), image)
    files.write_png(tmp_path / "b.png", image[..., :3])
    np.testing.assert_array_equal(files.read_rgb(tmp_path / "b.png"), image[..., :3])
    flat = np.broadcast_to(np.uint8([200, 40, 90]), (16, 16, 3))
    files.write_jpeg(tmp_path / "c.jpg", flat)
    assert np.abs(files.read_rgb(tmp_path / "c.jpg").astype(int) - flat).max() <= 3
    with pytest.raises(UserError, match=r"b\.png: missing, damaged or without alpha"):
        files.read_rgba(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"d\.png: missing or damaged"):
        files.read_rgb(tmp_path / "d.png")


def test_a_png_whose_chunk_promises_more_than_there_is_reaches_no_decoder(tmp_path: Path) -> None:
    """OpenCV takes as much memory as the chunk says: 4.5 GB for a file of 553 bytes, as fuzzing found."""
    path = tmp_path / "a.png"
    files.write_png(path, np.zeros((8, 6, 3), np.uint8))
    whole = path.read_bytes()
    assert files.whole_picture(whole) and files.whole_picture(whole + b"more")
    for place in range(8, len(whole)):
        assert not files.whole_picture(whole[:place])
    for strange in (b"\x7f\xff\xff\xff", b"\x00\x00\x10\x00"):
        path.write_bytes(whole[:33] + strange + whole[37:])  # the length of the first chunk after the header
        assert not files.whole_picture(path.read_bytes())
        with pytest.raises(UserError, match="missing or damaged"):
            files.read_rgb(path)
    assert not files.whole_picture(b"") and not files.whole_picture(whole[8:])


def test_one_process_works_in_a_folder_at_a_time(tmp_path: Path) -> None:
    command = (
        "import sys, time; from pathlib import Path; from degstalk_ns.files import only_one\n"
        "with only_one(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", command, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match="another degstalk or ns-train is working in it"), only_one(tmp_path):
            pass
        with only_one(tmp_path.parent):
            pass
    finally:
        other.kill()
        other.wait()
    with only_one(tmp_path):  # the system freed it when the process was killed
        pass
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def full(part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match=r"cannot be written .No space left on device.; make room"):
        with named_write_errors(tmp_path):
            write_whole(tmp_path / "a.bin", full)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError), named_write_errors(tmp_path):  # a mistake of the program, not of the user
        (tmp_path / "absent").read_bytes()


def test_files_and_folders_reach_the_disk(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    reach_disk(tmp_path / "a")
    reach_disk(tmp_path)
    with pytest.raises(FileNotFoundError):
        reach_disk(tmp_path / "absent")
