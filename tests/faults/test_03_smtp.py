"""Fault 3: mail servers that misbehave at every point of the conversation, and senders that die.

After each: never 0 copies, at most one extra, the same bytes and Message-ID in all of them.
"""

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from email import message_from_bytes
from typing import Any

import pytest
from sqlalchemy import URL

from prepaid_pipeline.audit import seals
from prepaid_pipeline.database import connections
from prepaid_pipeline.mail.sender import SendResult, send_emails
from prepaid_pipeline.operations import invariants
from prepaid_pipeline.people import accounts, decisions
from prepaid_pipeline.settings.load import Settings, load
from tests.conftest import fresh_database
from tests.faults.recorder import Recorder
from tests.mail.server import OK, Fault, Server, serving
from tests.world import TODAY, World, context

pytestmark = pytest.mark.fault
MAILS = 12
DROP, LATE = Fault(), Fault(OK["dot"], delivered=True, seconds=1.6)
GARBAGE = (b"\xff\xfe\x00", b"hello", b"25", b"999 what", b"250-" + b"x" * 9000, b"250-a\r\n" * 300)
# What the server does to the first attempts, and whether one of them may have arrived.
CERTAIN: dict[str, list[tuple[str, Fault]]] = {
    "421": [(stage, Fault(b"421 closing")) for stage in (*OK,)],
    "451": [(stage, Fault(b"451 later")) for stage in ("greeting", "mail", "rcpt", "data", "dot")],
    "drop before the end of DATA": [
        (stage, DROP) for stage in ("greeting", "ehlo", "mail", "rcpt", "data", "content")
    ],
    "garbage before the end of DATA": [
        (stage, Fault(garbage))
        for stage in ("greeting", "mail", "rcpt", "data")
        for garbage in GARBAGE
    ],
}
UNCERTAIN: dict[str, list[Fault]] = {
    "drop after DATA": [Fault(delivered=True), Fault(delivered=False)],
    "an answer too late": [LATE],
    "garbage after DATA": [Fault(g, delivered=d) for g in GARBAGE for d in (True, False)],
}


@pytest.fixture(scope="module")
def business(cluster: URL) -> Iterator[tuple[World, URL]]:
    """Plans whose confirmations wait in the outbox, each for an address of its own."""
    with fresh_database(cluster) as url:
        world = World(connections.engine_for(url))
        world.tax_rate("0.0725")
        for number in range(MAILS):
            world.due_renewal(email=f"p{number}@example.com")
        world.pay_and_approve(*world.open())
        world.settle()
        accounts.add(world.engine, "smtp_care", "customer_success")
        yield world, url
        world.engine.dispose()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


class Scene:
    """The outbox as it was ordered, a server, and what must be true of both in the end."""

    def __init__(self, world: World, url: URL, server: Server, home: str) -> None:
        self.world, self.server = world, server
        self.environ = {
            "PREPAID_HOME": home,
            "PREPAID_DATABASE_URL": url.render_as_string(hide_password=False),
            "PREPAID_SMTP_URL": server.url,
            "PREPAID_SMTP_TIMEOUT": "10",
            "PREPAID_SMTP_CONNECTIONS": "2",
        }
        self.order()

    @property
    def settings(self) -> Settings:
        return load(self.environ)

    def order(self) -> None:
        """All mails wait once more, and the server has nothing of them."""
        self.world.sql(
            "UPDATE prepaid.emails SET status = 'pending', attempts = 0, unknown_attempts = 0,"
            " deferred_since = NULL, sent_at = NULL, leased_until = NULL,"
            " last_error = NULL, next_attempt_at = clock_timestamp()"
        )
        self.server.behave()
        self.server.delivered.clear()

    def time_passes(self) -> None:
        self.world.sql(
            "UPDATE prepaid.emails SET next_attempt_at = clock_timestamp() - interval '1 second',"
            " leased_until = clock_timestamp() - interval '1 second'"
            " WHERE status IN ('pending', 'sending')"
        )

    def send(self, **settings: Any) -> SendResult:
        changed = self.settings.model_copy(update=settings)
        return send_emails(self.world.engine, changed, as_of=TODAY)

    def finish(self) -> None:
        """Clean runs; then a person sends again what may or may not have arrived."""
        self.server.behave()
        for _ in range(2):
            self.time_passes()
            self.send()
            if lists := self.undelivered():
                decisions.resend(self.world.engine, "smtp_care", lists)

    def undelivered(self) -> list[int]:
        return [
            row[0]
            for row in self.world.rows("SELECT email_id FROM prepaid.undelivered_mails ORDER BY 1")
        ]

    def extra(self) -> int:
        return sum(len(copies) - 1 for copies in self.server.delivered.values())

    def wrong(self, *, most: int = 2) -> list[str]:
        """What breaks the promise. A person's own resend may add a copy: ``most`` is 3 then."""
        found = []
        rows = self.world.rows("SELECT recipient, status, message_id, content FROM prepaid.emails")
        for recipient, status, message_id, content in rows:
            copies = self.server.delivered[recipient]
            if status != "sent" or not 1 <= len(copies) <= most:
                found.append(f"{recipient}: {status}, {len(copies)} copies")
            if any(copy != bytes(content) for copy in copies):
                found.append(f"{recipient}: other bytes than stored")
            if any(message_from_bytes(copy)["Message-ID"] != message_id for copy in copies):
                found.append(f"{recipient}: another Message-ID")
        return found

    def checked(self) -> list[str]:
        """What ``prepaid check`` and ``prepaid audit verify`` find."""
        found = [f for c in invariants.run(self.world.engine, context()) for f in c.findings]
        seals.seal(self.world.engine)
        return found + [str(finding) for finding in seals.verify(self.world.engine)]


@pytest.fixture
def scene(business: tuple[World, URL], server: Server, tmp_path: Any) -> Scene:
    return Scene(*business, server, str(tmp_path))


@pytest.mark.parametrize("kind", CERTAIN)
def test_what_delivered_nothing_makes_no_copy(scene: Scene, kind: str, record: Recorder) -> None:
    wrong = []
    for stage, fault in CERTAIN[kind]:
        scene.order()
        scene.server.will(stage, *[fault] * 5)
        first = scene.send()
        assert first.failed == first.unknown == 0
        scene.finish()
        wrong += [f"{kind} at {stage}: {w}" for w in scene.wrong(most=1)]
    record(
        fault=3, what=f"{kind}: exactly 1 copy", points=len(CERTAIN[kind]), violations=len(wrong)
    )
    assert not wrong


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.smoke] * (k == "drop after DATA")) for k in UNCERTAIN],
)
def test_what_may_have_arrived_makes_one_copy_more(
    scene: Scene, kind: str, record: Recorder
) -> None:
    wrong = []
    for fault in UNCERTAIN[kind]:
        scene.order()
        scene.server.will("dot", None, *[fault] * 3)
        first = scene.send(smtp_timeout=1 if fault.seconds else 10)
        assert (first.sent, first.retried) == (MAILS - 3, 3)
        scene.finish()
        assert scene.extra() == (3 if fault.delivered else 0)
        wrong += [f"{kind}: {w}" for w in scene.wrong()]
    wrong += scene.checked()
    record(
        fault=3,
        what=f"{kind}: 1 or 2 copies",
        points=3 * len(UNCERTAIN[kind]),
        violations=len(wrong),
    )
    assert not wrong


def test_refused(scene: Scene, record: Recorder) -> None:
    """Nobody listens, nobody gets in: nothing fails, everything waits."""
    wrong = []
    with serving() as gone:
        nobody = gone.url
    listening, scene.environ["PREPAID_SMTP_URL"] = scene.environ["PREPAID_SMTP_URL"], nobody
    assert scene.send() == SendResult(retried=MAILS)
    scene.environ["PREPAID_SMTP_URL"] = listening
    scene.finish()
    wrong += scene.wrong(most=1)
    scene.order()
    scene.server.will("mail", *[Fault(b"550 not you")] * MAILS)
    assert scene.send() == SendResult(retried=MAILS)
    scene.finish()
    wrong += scene.wrong(most=1)
    wrong += scene.checked()
    record(
        fault=3,
        what="no server there, sender refused: exactly 1 copy",
        points=2,
        violations=len(wrong),
    )
    assert not wrong


@pytest.mark.smoke
@pytest.mark.parametrize("stage", ["rcpt", "dot"])
def test_550_fails_for_good_and_blocks_nobody(scene: Scene, stage: str, record: Recorder) -> None:
    scene.server.will(stage, None, *[Fault(b"550 no such user")] * 3)
    assert scene.send() == SendResult(sent=MAILS - 3, failed=3)
    scene.time_passes()
    assert scene.send() == SendResult(), "never again by itself"
    assert len(scene.undelivered()) == 3
    assert sum(map(len, scene.server.delivered.values())) == MAILS - 3
    decisions.resend(scene.world.engine, "smtp_care", scene.undelivered())
    scene.finish()
    wrong = scene.wrong(most=1)
    wrong += scene.checked()
    record(
        fault=3,
        what=f"550 at {stage}, one bad recipient among others: exactly 1 copy",
        points=3,
        violations=len(wrong),
    )
    assert not wrong


def test_a_second_unknown_outcome_is_for_a_person(scene: Scene, record: Recorder) -> None:
    for delivered in (True, False):
        scene.order()
        scene.server.will("dot", *[Fault(delivered=delivered)] * 2 * MAILS)
        scene.send()
        scene.time_passes()
        assert scene.send() == SendResult(unknown=MAILS)
        assert scene.extra() == (MAILS if delivered else 0)
        scene.time_passes()
        assert scene.send() == SendResult(), "no third copy by itself"
        assert len(scene.undelivered()) == MAILS
        if delivered:
            settled = decisions.settle_mails(
                scene.world.engine, "smtp_care", scene.undelivered(), "the server's log has them"
            )
            assert settled == MAILS
        else:
            # Only one unknown attempt more is made of what a person sends again.
            decisions.resend(scene.world.engine, "smtp_care", scene.undelivered())
            scene.server.behave()
            scene.server.will("dot", DROP)
            assert scene.send() == SendResult(sent=MAILS - 1, unknown=1)
            decisions.resend(scene.world.engine, "smtp_care", scene.undelivered())
            scene.finish()
        wrong = scene.wrong() + scene.checked()
        record(
            fault=3,
            what="drop after DATA twice: a person decides",
            points=MAILS,
            violations=len(wrong),
        )
        assert not wrong


def test_anything_at_random(scene: Scene, record: Recorder) -> None:
    seed, wrong, points = 20261123, [], 0
    chance = random.Random(seed)
    certain = [pair for pairs in CERTAIN.values() for pair in pairs]
    uncertain = [("dot", f) for fs in UNCERTAIN.values() for f in fs if not f.seconds]
    for _ in range(8):
        scene.order()
        for _ in range(3):
            for stage, fault in chance.choices(certain, k=8) + chance.choices(uncertain, k=3):
                scene.server.will(stage, *[None] * chance.randrange(3), fault)
                points += 1
            scene.send()
            scene.time_passes()
        before = {to: len(copies) for to, copies in scene.server.delivered.items()}
        wrong += [
            f"{to}: {n} copies before anybody sent one again" for to, n in before.items() if n > 2
        ]
        scene.finish()
        wrong += scene.wrong(most=3)
    wrong += scene.checked()
    record(fault=3, what="all of these at random", points=points, violations=len(wrong), seed=seed)
    assert not wrong


def send_until_killed(environ: dict[str, str]) -> None:
    """What the process does that is killed."""
    settings = load(environ)
    engine = connections.engine_for(connections.url(settings))
    send_emails(engine, settings, as_of=TODAY)


def kill_process(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)


def test_killed_around_the_250(scene: Scene, record: Recorder) -> None:
    """SIGKILL of the sender at each stage of a mail, and between the server's 250 and our note."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload([__name__])
    wrong, extra, points = [], 0, 0
    replies = [(stage, OK[stage]) for stage in ("mail", "data", "dot")] + [("dot", None)]
    for stage, reply in replies:
        for mail in (0, MAILS // 2, MAILS - 1):
            scene.order()
            victim = start.Process(target=send_until_killed, args=(scene.environ,))
            kill = Fault(
                reply, delivered=True, then=lambda v=victim: os.kill(v.pid, signal.SIGKILL)
            )
            scene.server.will(stage, *[None] * mail, kill)
            victim.start()
            victim.join(30)
            assert victim.exitcode == -signal.SIGKILL
            assert scene.send() == SendResult(), "until its lease is over nobody else sends them"
            scene.finish()
            extra += scene.extra()
            wrong += scene.wrong()
            points += 1
    wrong += scene.checked()
    record(
        fault=3,
        what="sender killed at each stage and after the 250: 1 or 2 copies",
        points=points,
        violations=len(wrong),
    )
    assert not wrong
    assert extra, "some arrived before the kill, and once more after it"
