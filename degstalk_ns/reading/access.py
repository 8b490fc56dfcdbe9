"""Files that cannot be read whatever they hold. It must not know formats."""

from __future__ import annotations

from pathlib import Path

from degstalk_ns.errors import UserError


def refuse_unreadable(path: Path) -> None:
    """Returns where ``path`` can be opened, and where no file is there. Readers call it to tell a file that is broken
    from one that they were not let into.

    Raises:
        UserError: it is a folder, or cannot be opened.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; expected a file")
        if path.is_file():  # a pipe would be waited for
            path.open("rb").close()
    except PermissionError as error:
        reason = error.strerror or "permission denied"
        raise UserError(f"{path}: cannot be read ({reason}); give this user the permission to read it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
