"""Who owns a test set, and what they call it; its content is an artifact."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from workbench.store import schema
from workbench.store.isolation import everybody
from workbench.store.records import now
from workbench.store.transaction import retried, transaction

__all__ = [
    "add_tag", "add_test_set_owner", "owned_page", "owned_test_set", "owned_test_sets",
    "owners_of", "parts_of", "remove_tag", "remove_test_set_owner", "tags_of",
]  # fmt: skip


@retried
def add_test_set_owner(
    engine: Engine, test_set: str, *, owner: str, metadata: dict[str, Any]
) -> None:
    """Say that a user owns a test set, and made it now.

    Where that was said before, the first words stand, but for the time.
    """
    table = schema.test_set_owners
    row = {"test_set": test_set, "owner": owner, "created_at": now(), "metadata": metadata}
    try:
        with transaction(engine) as connection:
            connection.execute(insert(table), row)
    except IntegrityError:
        mine = (table.c.test_set == test_set) & (table.c.owner == owner)
        with transaction(engine) as connection:
            connection.execute(update(table).where(mine).values(created_at=row["created_at"]))


def remove_test_set_owner(engine: Engine, test_set: str, *, owner: str) -> int:
    """Take a test set, and its tags, off a user's list; return how many owners are left."""
    with transaction(engine) as connection:
        for table in (schema.test_set_tags, schema.test_set_owners):
            mine = (table.c.test_set == test_set) & (table.c.owner == owner)
            connection.execute(delete(table).where(mine))
    return len(owners_of(engine, test_set))


@retried
def owners_of(engine: Engine, test_set: str) -> list[str]:
    """Return all users that own a test set, sorted: its content goes with the last of them."""
    table = schema.test_set_owners
    query = select(table.c.owner).where(table.c.test_set == test_set).order_by(table.c.owner)
    with transaction(everybody(engine)) as connection:
        if engine.dialect.name == "postgresql":  # also for roles that may act for themselves alone
            query = select(func.workbench_owners(test_set))
        return sorted(connection.execute(query).scalars())


@retried
def owned_test_sets(engine: Engine, *, owner: str) -> list[dict[str, Any]]:
    """Return test_set, created_at and metadata of what a user owns, oldest first."""
    table = schema.test_set_owners
    query = select(table).where(table.c.owner == owner).order_by(table.c.created_at)
    with transaction(engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


@retried
def owned_page(
    engine: Engine, *, owner: str, before: tuple[str, str] | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Return a page of what a user owns, newest first: test_set, created_at and metadata.

    Args:
        engine: Of the store.
        owner: Whose.
        before: created_at and test_set of the last row of the page before; None for the first.
        limit: Most to return.
    """
    table = schema.test_set_owners
    place = tuple_(table.c.created_at, table.c.test_set)
    query = select(table.c.test_set, table.c.created_at, table.c.metadata)
    query = query.where(table.c.owner == owner)
    query = query.where(place < before) if before else query
    query = query.order_by(table.c.created_at.desc(), table.c.test_set.desc()).limit(limit)
    with transaction(engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


@retried
def owned_test_set(engine: Engine, test_set: str, *, owner: str) -> dict[str, Any] | None:
    """Return test_set, created_at and metadata of one that a user owns; None if they own none."""
    table = schema.test_set_owners
    mine = (table.c.test_set == test_set) & (table.c.owner == owner)
    with transaction(engine) as connection:
        row = connection.execute(select(table).where(mine)).mappings().first()
    return dict(row) if row else None


@retried
def parts_of(engine: Engine, test_set: str, *, owner: str) -> list[str]:
    """Return the test sets of a user that were made from some cases of this one."""
    table = schema.test_set_owners
    is_part = table.c.metadata["parent"].as_string() == test_set
    with transaction(engine) as connection:
        query = select(table.c.test_set).where(table.c.owner == owner, is_part)
        return list(connection.execute(query).scalars())


def add_tag(engine: Engine, test_set: str, tag: str, *, owner: str) -> None:
    """Tag a test set for its owner; a tag that is there already stays."""
    row = {"test_set": test_set, "owner": owner, "tag": tag}
    try:
        with transaction(engine) as connection:
            connection.execute(insert(schema.test_set_tags), row)
    except IntegrityError:
        return


def remove_tag(engine: Engine, test_set: str, tag: str, *, owner: str) -> None:
    """Take a tag off a test set of its owner."""
    table = schema.test_set_tags
    mine = (table.c.test_set == test_set) & (table.c.owner == owner) & (table.c.tag == tag)
    with transaction(engine) as connection:
        connection.execute(delete(table).where(mine))


@retried
def tags_of(engine: Engine, *, owner: str) -> dict[str, list[str]]:
    """Return test set → tags, sorted, of all that a user tagged."""
    table = schema.test_set_tags
    query = select(table.c.test_set, table.c.tag).where(table.c.owner == owner)
    found: dict[str, list[str]] = {}
    with transaction(engine) as connection:
        for test_set, tag in connection.execute(query.order_by(table.c.tag)):
            found.setdefault(test_set, []).append(tag)
    return found
