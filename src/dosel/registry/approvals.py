"""Approvals: people who agree, each with a key of their own, before a version enters Production.

An approval is for a request, and a request is for one version with its files and verdict, as the next entry of the
promotion ledger: after any other entry it is void. Each approval carries a code (HMAC-SHA256) that only the key's
holder and the processes that know the keys can compute. A request is signed by the process that wrote it, since a
request of the gate may need fewer people than one by hand. Both rows have entries in the hash chain. So a row that was
edited or inserted in the data store does not count.
"""

import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import IntegrityError

from dosel.db import chain
from dosel.db.engine import reading, transaction
from dosel.db.migrations import migrate
from dosel.db.tables import APPROVAL_REQUESTS, APPROVALS
from dosel.db.types import fitting
from dosel.errors import ApprovalsMissing, PromotionRefused
from dosel.registry import signed_entries
from dosel.registry.announcements import announce_request
from dosel.signing import Keys
from dosel.usecases import ALL, Approval

LARGEST_DIFFERENCE = timedelta(minutes=5)
"""Largest difference between machines' clocks with which a request of one counts for the other at once."""


@dataclass(frozen=True)
class Subject:
    """What people agree to.

    Attributes:
        gate_digest: SHA-256 of the gate's verdict; "" without one.
        sequence: the promotion ledger's last entry; 0 without one.
        kind: "manual", or the cause of a promotion that is automatic otherwise.
    """

    model: str
    version: int
    run_id: str
    manifest_digest: str
    gate_digest: str
    sequence: int
    kind: str


@dataclass(frozen=True)
class GivenApproval:
    """An approval."""

    holder: str
    at: datetime
    mac: str


@dataclass(frozen=True)
class Request:
    """A promotion that waits, or waited, for people; `number` counts a model's requests from 1."""

    subject: Subject
    number: int
    at: datetime
    expires_at: datetime
    actor: str
    reason: str
    approvals: tuple[GivenApproval, ...] = ()

    @property
    def people(self) -> int:
        """How many must agree, by the declaration."""
        return needed(self.subject.model, self.subject.kind)

    @property
    def expired(self) -> bool:
        """Whether its hours are over, or have not begun: by a clock that was ahead, it would be open for too long."""
        now = datetime.now(UTC)
        return now >= self.expires_at or now < self.at - LARGEST_DIFFERENCE

    def holders(self, names: Mapping[str, str]) -> list[str]:
        """The people whose approvals count: different people, with different keys, of which each is in use.

        Args:
            names: the holders' names by key.
        """
        counted: dict[str, GivenApproval] = {}
        for given in self.approvals:
            genuine = any(
                person(name) == person(given.holder) and hmac.compare_digest(self.mac(key).encode(), given.mac.encode())
                for key, name in names.items()
            )
            if genuine and given.mac not in {other.mac for other in counted.values()}:
                counted.setdefault(person(given.holder), given)
        return [given.holder for given in counted.values()]

    def mac(self, key: str) -> str:
        """The code of an approval with a key: 64 hexadecimal digits."""
        content = {name: str(value) for name, value in (asdict(self) | asdict(self.subject)).items()}
        message = chain.canonical({name: content[name] for name in _COVERED})
        return hmac.new(key.encode(), b"dosel approval 1\n" + message, "sha256").hexdigest()


_COVERED = (
    *(field.name for field in fields(Subject)),
    *("number", "at", "expires_at", "actor", "reason"),
)
"""What an approval's code covers."""


class Approvals:
    """Requests and approvals.

    Args:
        names: the holders' names by key, as in `Settings.promote_key_names`.
        keys: those that sign requests; by default those of the environment.
    """

    def __init__(self, engine: Engine, names: Mapping[str, str], keys: Keys | None = None) -> None:
        self._engine = engine
        self.names = names
        self._keys = keys or Keys()

    def admit(self, subject: Subject, actor: str, reason: str, holder: str | None) -> Request | None:
        """Check that enough people agreed to a promotion; the caller holds the model's lock.

        Args:
            holder: the person who asks for it, who agrees by that; None for a process.

        Returns:
            The request that they agreed to; None if the use case declares that none is needed.

        Raises:
            ApprovalsMissing: more people must agree. There is a request now, and it has this person's approval.
            PromotionRefused: the caller has no key of a promoter.
        """
        if not needed(subject.model, subject.kind):
            return None
        key = next((key for key, name in self.names.items() if name == holder), None)
        if key is None and subject.kind == "manual":
            raise PromotionRefused(
                f"{subject.model}: a promotion by hand needs {needed(subject.model, 'manual')} people with keys "
                "of the role promoter (DOSEL_KEYS). Send a key, or set DOSEL_API_KEY for the command line"
            )
        request = self._open(subject) or self._start(subject, actor, reason)
        if key is not None and holder is not None:
            request = self._give(request, holder, key)
        missing = request.people - len(agreed := request.holders(self.names))
        if missing > 0:
            by = f" (so far: {', '.join(agreed)})" if agreed else ""
            raise ApprovalsMissing(
                f"{subject.model} version {subject.version} waits for {missing} more "
                f"{'person' if missing == 1 else 'people'}{by}, until {request.expires_at:%Y-%m-%d %H:%M} UTC: "
                f"request {request.number}",
                request.number,
            )
        return request

    def of_model(self, model: str) -> list[Request]:
        """All signed requests of a model with their approvals, oldest first, without rows that the chain lacks."""
        migrate(self._engine)
        with reading(self._engine) as connection:
            return _requests(connection, model, self._keys)

    def open(self, model: str, sequence: int) -> list[Request]:
        """The requests that people can still approve.

        Args:
            sequence: the promotion ledger's last entry.
        """
        return [r for r in self.of_model(model) if not r.expired and r.subject.sequence == sequence]

    def _open(self, subject: Subject) -> Request | None:
        """The request for this very promotion, of whatever kind, that needs the fewest people."""
        same = [
            request
            for request in self.open(subject.model, subject.sequence)
            if asdict(request.subject) | {"kind": ""} == asdict(subject) | {"kind": ""} and request.people
        ]
        return min(same, key=lambda request: request.people, default=None)

    def _start(self, subject: Subject, actor: str, reason: str) -> Request:
        now, hours = datetime.now(UTC), rules_of(subject.model).hours
        with transaction(self._engine) as connection:
            known = connection.scalars(
                select(APPROVAL_REQUESTS.c.number).where(APPROVAL_REQUESTS.c.model == subject.model)
            )
            number = max(known, default=0) + 1
            values = {
                **asdict(subject),
                "number": number,
                "at": now.replace(tzinfo=None),
                "expires_at": (now + timedelta(hours=hours)).replace(tzinfo=None),
                "actor": actor[:255],
                "reason": fitting(reason),
            }
            signed_entries.add(connection, APPROVAL_REQUESTS, values, self._keys.settings)
            request = _requests(connection, subject.model, self._keys)[-1]
            announce_request(connection, request)
            return request

    def _give(self, request: Request, holder: str, key: str) -> Request:
        values = {
            "model": request.subject.model,
            "number": request.number,
            "holder": holder,
            "at": datetime.now(UTC).replace(tzinfo=None),
            "mac": request.mac(key),
        }
        if person(holder) not in map(person, request.holders(self.names)):
            try:
                with transaction(self._engine) as connection:
                    chain.add(connection, APPROVALS, values)
            except IntegrityError:
                # The same key approved under another name.
                pass
        return next(r for r in self.of_model(request.subject.model) if r.number == request.number)


def needed(model: str, kind: str) -> int:
    """How many people must agree to a promotion of this kind; 0 if it needs no request."""
    rules = rules_of(model)
    if kind == "manual":
        return rules.people if rules.people > 1 else 0
    return rules.automatic if kind in ("gate", "shadow") else 0


def rules_of(model: str) -> Approval:
    """What the model's use case declares."""
    return next((use_case.approval for use_case in ALL if use_case.model_name == model), Approval())


def person(name: str) -> str:
    """A holder's name without regard to case, blanks, invisible characters and forms of a letter: one person's."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in plain if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc"))


def _requests(connection: Connection, model: str, keys: Keys) -> list[Request]:
    approvals: dict[int, list[GivenApproval]] = {}
    for row in chain.intact(connection, APPROVALS, APPROVALS.c.model == model):
        given = GivenApproval(row["holder"], row["at"].replace(tzinfo=UTC), row["mac"])
        approvals.setdefault(row["number"], []).append(given)
    return [
        Request(
            Subject(**{field.name: row[field.name] for field in fields(Subject)}),
            row["number"],
            row["at"].replace(tzinfo=UTC),
            row["expires_at"].replace(tzinfo=UTC),
            row["actor"],
            row["reason"],
            tuple(approvals.get(row["number"], ())),
        )
        for row in signed_entries.proven(
            connection,
            APPROVAL_REQUESTS,
            chain.intact(connection, APPROVAL_REQUESTS, APPROVAL_REQUESTS.c.model == model),
            keys,
        )
    ]
