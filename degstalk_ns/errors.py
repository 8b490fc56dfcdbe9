"""The one exception for mistakes a user can mend. It knows nothing of terminals, nerfstudio or file formats."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, said in one line: which file or option, what was expected, what to do.

    Command lines and adapters print the message and exit with a code other than 0; library callers catch it.
    """
