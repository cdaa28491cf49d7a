"""Send presence notices: the members of a session, at most once in `presence_seconds`."""

import asyncio
from functools import partial

import attrs

from hub.delivery.channel import Channel
from hub.delivery.fanout import Fanout
from hub.limits import Limits
from hub.messages import Presence


@attrs.define(eq=False)
class PresenceNotifier:
    """Sends presence notices. Each session whose members have changed has one timer."""

    fanout: Fanout
    limits: Limits
    _timers: dict[Channel, asyncio.TimerHandle] = attrs.Factory(dict)

    def schedule_notice(self, channel: Channel) -> None:
        """Send a notice to the session's subscribers after `presence_seconds`, with all changes until then."""
        if channel not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[channel] = loop.call_later(self.limits.presence_seconds, self._send, channel)

    def make_notice(self, channel: Channel) -> Presence:
        """Return the notice of a session's members. It lists them only if there are at most `presence_members`."""
        members = channel.list_members()
        listed_members = tuple(members) if len(members) <= self.limits.presence_members else None
        return Presence(sessionId=channel.id, count=len(members), members=listed_members)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _send(self, channel: Channel) -> None:
        del self._timers[channel]
        self.fanout.send_notice(channel, partial(self.make_notice, channel))
