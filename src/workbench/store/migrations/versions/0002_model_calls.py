"""Model calls: what is in flight, what was answered, and the details of what was billed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_WHERE_FROM = (("work", 64), ("job", 64), ("experiment", 200), ("phase", 32))


def _texts(*columns: tuple[str, int]) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(length), nullable=False) for name, length in columns]


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(), nullable=False)


def upgrade() -> None:
    for name, kind, old in (("work", sa.String(64), ""), ("details", sa.JSON(), "{}")):
        op.add_column("ledger", sa.Column(name, kind, nullable=False, server_default=old))
    op.create_index("ledger_by_at", "ledger", ["at"])
    lock = op.create_table(
        "budget_lock",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("turn", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(lock, [{"id": 1, "turn": 0}])
    op.create_table(
        "flights",
        sa.Column("id", sa.String(64), primary_key=True),
        *_texts(("key", 64), *_WHERE_FROM, ("provider", 32), ("model", 200), ("who", 200)),
        *_texts(("worst_usd", 40), ("owner", 300), ("at", 32)),
        sa.Column("is_shared", sa.Boolean(), nullable=False),
    )
    op.create_index("flights_by_key", "flights", ["key"])
    op.create_table(
        "responses",
        *_texts(("key", 64), ("work", 64), ("namespace", 200), ("created_at", 32)),
        sa.Column("expires_at", sa.Float(), nullable=True),
        _json("answer"),
        sa.PrimaryKeyConstraint("key", "work"),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.String(64), primary_key=True),
        *_texts(("remote_id", 200), *_WHERE_FROM, ("who", 200), ("key_hash", 64)),
        *_texts(("owner", 300), ("state", 16), ("created_at", 32)),
        _json("requests"),
    )
    op.create_index("batches_by_work", "batches", ["work"])
    op.create_table(
        "estimates",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        *_texts(*_WHERE_FROM, ("at", 32)),
        _json("figures"),
    )
    op.create_index("estimates_by_experiment", "estimates", ["experiment"])


def downgrade() -> None:
    for table in ("estimates", "batches", "responses", "flights", "budget_lock"):
        op.drop_table(table)
    op.drop_index("ledger_by_at", "ledger")
    op.drop_column("ledger", "details")
    op.drop_column("ledger", "work")
