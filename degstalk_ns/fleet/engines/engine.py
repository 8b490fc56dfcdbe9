"""What an engine is: it starts steps on some machine, and tells how they ended. It must not know what they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from degstalk_ns.fleet.manifest import Manifest, Need
from degstalk_ns.fleet.steps import FleetStep


@dataclass(frozen=True)
class StepEnd:
    """How a step's process has ended.

    Attributes:
        key: subject and name of the step.
        lost: why it was not its own doing (the worker or its machine is gone); empty where it ended by itself.
        node: where it ran.
    """

    key: tuple[str, str]
    lost: str = ""
    node: str = ""


class Engine(Protocol):
    """A place to run steps in. A context manager: on leaving, nothing that it started runs any more.

    Attributes:
        told: once it is entered, one line on where else one can look; or nothing.
    """

    name: str
    told: str

    def __enter__(self) -> Engine: ...

    def __exit__(self, *_: object) -> None: ...

    def check(self, manifest: Manifest, needs: dict[str, Need]) -> list[str]:
        """What makes the manifest impossible here, in words: needs that nothing can meet, paths that a machine does
        not see."""
        ...

    def has_room(self, step: FleetStep) -> bool:
        """Whether it takes another step now, to run or to queue it."""
        ...

    def start(self, step: FleetStep) -> None:
        """Begin a step."""
        ...

    def ended(self, patience: float) -> list[StepEnd]:
        """Steps that have ended since the last call; waits for one for so many seconds at most."""
        ...
