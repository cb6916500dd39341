"""Limits work in progress: a client may take at most half of the places that other clients leave free."""

from app.serving.loaded_model import Overloaded


class Places:
    """Counts what is in progress, in requests or in bytes, by client. For the event loop's thread only.

    Of 32 places, the first client gets at most 16, a second one then 8, a third one 4: clients that take all they can
    still leave places for others.

    Args:
        what: name of the places, for the error.
        total: their number.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._taken = 0
        self._clients: dict[str, int] = {}

    def check(self, client: str, count: int = 1) -> None:
        """
        Raises:
            Overloaded: there are not `count` free places for this client.
        """
        if self._taken + count > self._total:
            raise Overloaded(f"{self._what} is full ({self._total:,}); try again later")
        own = self._clients.get(client, 0)
        most = (self._total - (self._taken - own) + 1) // 2
        if own + count > most:
            raise Overloaded(
                f"{self._what} has no more room for one client ({most:,} of {self._total:,}); try again later"
            )

    def take(self, client: str, count: int = 1) -> None:
        """Take places, which `leave` gives back.

        Raises:
            Overloaded: as `check`.
        """
        self.check(client, count)
        self._taken += count
        self._clients[client] = self._clients.get(client, 0) + count

    def leave(self, client: str, count: int = 1) -> None:
        """Give back places that were taken."""
        self._taken -= count
        left = self._clients[client] - count
        if left:
            self._clients[client] = left
        else:
            del self._clients[client]
