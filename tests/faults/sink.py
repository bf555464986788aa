"""A mail server that takes everything and remembers what it took."""

import hashlib
import socket
from collections import Counter, defaultdict
from email import message_from_bytes

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.world import World


class Sink:
    """Copies by Message-ID. ``extra``: how many mails may have come twice (a crash each)."""

    def __init__(self) -> None:
        self.copies: Counter[str] = Counter()
        self.contents: dict[str, set[str]] = defaultdict(set)
        self.extra = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=port)
        self.url = f"smtp://127.0.0.1:{port}"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        message_id = str(message_from_bytes(content)["Message-ID"])
        self.copies[message_id] += 1
        self.contents[message_id].add(hashlib.sha256(content).hexdigest())
        return "250 taken"

    def wrong(self, world: World) -> list[str]:
        """Mails that never came, came too often, or with other bytes the second time."""
        sent = [
            row[0]
            for row in world.rows(
                "SELECT message_id FROM prepaid.emails WHERE service_plan_id IS NOT NULL"
            )
        ]
        found = [f"mail {name} never came" for name in sent if not self.copies[name]]
        found += [f"mail {name} came {n} times" for name, n in self.copies.items() if n > 2]
        found += [
            f"{name} came with other bytes" for name, c in self.contents.items() if len(c) > 1
        ]
        if self.extra < sum(n - 1 for n in self.copies.values()):
            found.append(f"more than {self.extra} mails came twice")
        return found

    def __enter__(self) -> "Sink":
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
