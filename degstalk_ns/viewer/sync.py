"""Synchronises frames with audio: where the audio is now, which frame to render next, how far ahead.

The audio plays in a browser, which reports its position from time to time. Rendering and sending a frame takes time, so
frames are rendered for the moment at which they will be seen. All times are in seconds. It must not know viewers, audio
or avatars.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FollowedSound:
    """Where a sound is that reports its position now and then.

    Between reports it is taken to run on at its own speed while it plays. Reports out of order are left out.
    """

    position: float = 0.0
    playing: bool = False
    loop: bool = False
    at: float = 0.0
    """When the last report came, on the reader's own clock."""
    number: int = -1
    """Number of the last report."""

    def report(self, number: int, position: float, playing: bool, at: float) -> bool:
        """Take a report; False where a later one is known already."""
        if number <= self.number:
            return False
        self.number, self.position, self.playing, self.at = number, position, playing, at
        return True

    def now(self, at: float) -> float:
        """Position at the time ``at``, beyond the end where it would have ended by then."""
        return self.position + (max(at - self.at, 0.0) if self.playing else 0.0)


@dataclass
class Lead:
    """How far ahead of the sound a frame is drawn so that it is there when its moment comes.

    Each shown frame tells how early it came (``spare``, negative when late); the lead moves towards what would have
    made it come ``wanted`` early. Late frames count more than early ones, for a frame in hand costs nothing.
    """

    seconds: float = 0.3
    """Start: drawing, sending and decoding a frame on a slow machine."""
    wanted: float = 0.08
    """Seconds in hand: the jitter of a local connection and of a busy machine."""
    gain_late: float = 0.4
    gain_early: float = 0.02
    """Low, for several frames are on their way when the lead changes: otherwise it would swing."""
    longest: float = 1.5
    """Never further ahead than this: behind a connection as slow as that, nothing would be in step anyway."""

    def observe(self, spare: float) -> None:
        """Correct the lead by how early (seconds) a frame came."""
        error = self.wanted - spare
        # A page that stood still for a while (a hidden tab) says nothing about the way there.
        error = min(max(error, -0.5), 0.5)
        self.seconds += error * (self.gain_late if error > 0 else self.gain_early)
        self.seconds = min(max(self.seconds, 0.0), self.longest)


@dataclass
class InFlight:
    """Frames sent and not yet confirmed: a page that cannot keep up is not flooded."""

    standing: int = 2
    """How many at a time while the sound stands: one being drawn in the page while the next is on its way, so that what
    is seen while dragging is never old."""
    playing: int = 8
    """How many while it plays: each waits for its moment anyway, and a slow way there takes several frames' time."""
    patience: float = 1.0
    """Seconds after which a frame counts as lost."""
    sent: dict[int, float] = field(default_factory=dict)

    def start(self, number: int, at: float) -> None:
        self.sent[number] = at

    def confirm(self, number: int) -> None:
        """Frame ``number`` has arrived, and with it all earlier ones."""
        for known in [other for other in self.sent if other <= number]:
            del self.sent[known]

    def full(self, at: float, playing: bool) -> bool:
        """True while another frame should wait."""
        for number in [number for number, since in self.sent.items() if at - since > self.patience]:
            del self.sent[number]
        return len(self.sent) >= (self.playing if playing else self.standing)
