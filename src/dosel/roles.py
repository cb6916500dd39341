"""Keys and roles: who may read, predict, change Production, and administer."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from dosel.errors import SettingsError

SHORTEST_KEY = 16


class Role(IntEnum):
    """What the holder of a key may do; each role may do what those before it may."""

    reader = 1
    """Read everything, also about the rows of closed use cases."""
    scorer = 2
    """Predict, explain and give feedback."""
    promoter = 3
    """Promote, roll back, and end shadows."""
    admin = 4
    """Administer Airflow, too."""

    @property
    def in_airflow(self) -> str:
        """The role of Airflow's simple auth manager."""
        return {Role.reader: "viewer", Role.scorer: "viewer", Role.promoter: "user", Role.admin: "admin"}[self]


@dataclass(frozen=True)
class Holder:
    """The holder of a key."""

    name: str
    role: Role
    key: str = field(repr=False)


def holders(variable: str, text: str, role: Role | None = None) -> tuple[Holder, ...]:
    """The holders in a setting: `name:role:key,name:role:key`, or `name:key,name:key` if all have one role.

    Raises:
        SettingsError: the setting has another form, or a key is too short or not unique.
    """
    found = [_holder(entry, role) for entry in text.split(",") if entry.strip()]
    valid = [holder for holder in found if holder is not None and holder.name and len(holder.key) >= SHORTEST_KEY]
    if len({holder.key for holder in valid}) < len(found):
        form = "name:role:key,name:role:key" if role is None else "name:key,name:key"
        roles = "" if role is not None else f" and a role of {', '.join(role.name for role in Role)}"
        # Without the value, which may be most of a key.
        raise SettingsError(
            f"{variable}: expected {form}, with different keys of at least {SHORTEST_KEY} characters{roles}"
        )
    return tuple(valid)


def named(found: Iterable[Holder], least: Role) -> dict[str, str]:
    """The names of the holders who have at least a role, by key."""
    return {holder.key: holder.name for holder in found if holder.role >= least}


def _holder(entry: str, role: Role | None) -> Holder | None:
    name, _, rest = entry.strip().partition(":")
    if role is not None:
        return Holder(name, role, rest)
    word, _, key = rest.partition(":")
    return Holder(name, Role[word], key) if word in Role.__members__ else None
