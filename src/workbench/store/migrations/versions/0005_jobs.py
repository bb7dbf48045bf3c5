"""Jobs; experiments and estimates by owner; on PostgreSQL no user sees another's rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_MY_SETS = "(SELECT test_set FROM test_set_owners)"  # itself under a policy: one's own
_MINE = "{0} = (SELECT workbench_user())"
_PAID = "{0} IN ((SELECT workbench_user()), 'rehearsal:' || (SELECT workbench_user()))"
_EXECUTED = "{0} IN (SELECT workbench_executions())"
_ARTIFACT = (
    "owner = (SELECT workbench_user())"
    f" OR (kind = 'test_set' AND id IN {_MY_SETS})"
    " OR (kind = 'execution' AND id IN (SELECT workbench_executions()))"
)
_POLICIES = {
    "runs": _MINE.format("owner"),
    "experiments": _MINE.format("owner"),
    "jobs": _MINE.format("owner"),
    "ledger": _PAID.format("who"),
    "flights": _PAID.format("who"),
    "batches": _PAID.format("who"),
    "estimates": _PAID.format("who"),
    "events": _MINE.format("who"),
    "test_set_tags": _MINE.format("owner"),
    "attempts": _EXECUTED.format("execution"),
    "outcomes": _EXECUTED.format("execution"),
    "findings": _EXECUTED.format("execution"),
    "triage_log": "finding IN (SELECT id FROM findings)",
}
"""Table → which rows are a user's, to read and to write."""
_SHARED_ANSWERS = (
    "(SELECT workbench_service(session_user)) OR work = '' OR work IN (SELECT work FROM ledger)"
)
_OTHERS = {
    # who owns a set may share it; who makes a set that is there already owns it too
    "test_set_owners": (
        _MINE.format("owner"),
        f"{_MINE.format('owner')} OR workbench_user() IN (SELECT workbench_owners(test_set))",
    ),
    # answers are found by the hash of the whole question: a service shares them
    "responses": (
        _SHARED_ANSWERS,
        "true",
    ),
}
"""Table → which rows are a user's to read and change, and which may be added."""

_SERVICE = """
CREATE FUNCTION workbench_service(who name) RETURNS boolean LANGUAGE sql STABLE
SET search_path = {schema}, pg_temp AS $$
    SELECT pg_has_role(who, relowner, 'MEMBER') FROM pg_class
    WHERE oid = '{schema}.ledger'::regclass
$$
"""
"""Whether a role is a member of the one that owns the tables: it may act for anybody."""
_USER = """
CREATE FUNCTION workbench_user() RETURNS text LANGUAGE sql STABLE
SET search_path = {schema}, pg_temp AS $$
    SELECT CASE WHEN workbench_service(session_user)
        THEN coalesce(current_setting('workbench.user', true), '') ELSE session_user::text END
$$
"""
"""Whom the transaction acts for: the service says so, all others are who they connected as."""
_ADMIN = """
CREATE FUNCTION workbench_admin() RETURNS boolean LANGUAGE sql STABLE
SET search_path = {schema}, pg_temp AS $$
    SELECT workbench_service(current_user)
        AND (workbench_user() = '' OR current_setting('workbench.inside', true) = 'on')
$$
"""
"""Whether every row may be seen: the service where it acts for nobody, or a function of ours."""
_EXECUTIONS = """
CREATE FUNCTION workbench_executions() RETURNS SETOF text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = {schema}, pg_temp AS $$ BEGIN
    PERFORM set_config('workbench.inside', 'on', true);
    RETURN QUERY WITH told AS (
        SELECT DISTINCT ON (subject) subject AS execution, details->>'test_set' AS test_set
        FROM events WHERE kind = 'attack_run_started' ORDER BY subject, id
    ), made AS (
        SELECT id::text AS execution, metadata->>'test_set' AS test_set
        FROM artifacts WHERE kind = 'execution'
        UNION ALL
        SELECT execution, test_set FROM told
        WHERE execution NOT IN (SELECT id FROM artifacts WHERE kind = 'execution')
    )
    SELECT execution FROM made
    WHERE test_set IN (SELECT test_set FROM test_set_owners WHERE owner = workbench_user())
       OR test_set NOT IN (SELECT test_set FROM test_set_owners);
    PERFORM set_config('workbench.inside', '', true);
END $$
"""
"""Executions of test sets that a user owns, or nobody does; the first to name one counts."""
_OWNERS = """
CREATE FUNCTION workbench_owners(wanted text) RETURNS SETOF text LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$ BEGIN
    PERFORM set_config('workbench.inside', 'on', true);
    RETURN QUERY SELECT owner::text FROM test_set_owners WHERE test_set = wanted ORDER BY owner;
    PERFORM set_config('workbench.inside', '', true);
END $$
"""
"""Everybody who owns a test set: its content goes with the last of them."""
_FUNCTIONS = {
    "workbench_service(name)": _SERVICE,
    "workbench_user()": _USER,
    "workbench_admin()": _ADMIN,
    "workbench_executions()": _EXECUTIONS,
    "workbench_owners(text)": _OWNERS,
}
_OF_ATTEMPTS = (
    ("attempts_through", "success = 1", "success"),
    ("attempts_in_error", "error != ''", "error != ''"),
)
"""Indexes of the attempts that got through or failed: name, condition on SQLite, on PostgreSQL."""


def _texts(*columns: tuple[str, int | None]) -> list[sa.Column[str]]:
    return [
        sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False)
        for name, length in columns
    ]


def _add_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        *_texts(("kind", 16), ("owner", 200), ("state", 16)),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ("request", "result")),
        *_texts(("error", None)),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("done", "total")),
        *_texts(("note", None), ("usd", 40), ("key", 200)),
        *_texts(("created_at", 32), ("started_at", 32), ("finished_at", 32), ("process", 300)),
        sa.Column("cancel", sa.Boolean(), nullable=False),
    )
    op.create_index("jobs_by_owner", "jobs", ["owner", "created_at", "id"])
    op.create_index("jobs_by_state", "jobs", ["state"])
    given = sa.text("key <> ''")
    op.create_index(
        "jobs_by_key", "jobs", ["owner", "key"], unique=True,
        sqlite_where=given, postgresql_where=given,
    )  # fmt: skip


def _key_experiments(*columns: str, constraint: str, rows: str) -> None:
    """Make the table of experiments again with another key, keeping the rows of a query."""
    op.rename_table("experiments", "experiments_before")
    op.create_table(
        "experiments",
        *_texts(("name", 200), ("file", None)),
        sa.Column("members", sa.JSON(), nullable=False),
        *_texts(("state", 16), ("owner", 200), ("started_at", 32), ("finished_at", 32)),
        sa.PrimaryKeyConstraint(*columns, name=constraint),
    )
    op.execute(f"INSERT INTO experiments {rows}")
    op.drop_table("experiments_before")


def _isolate() -> None:
    bind = op.get_bind()
    quote = bind.dialect.identifier_preparer.quote
    schema = quote(bind.execute(sa.text("SELECT current_schema()")).scalar_one())
    for body in _FUNCTIONS.values():
        op.execute(body.format(schema=schema))
    policies = {table: (rows, rows) for table, rows in _POLICIES.items()} | _OTHERS
    for table, (seen, added) in policies.items():
        _enforce(table)
        admin = "(SELECT workbench_admin())"
        op.execute(
            f"CREATE POLICY own_rows ON {table}"
            f" USING ({admin} OR {seen}) WITH CHECK ({admin} OR {added})"
        )
    _enforce("artifacts")  # what is made of no user's secrets is shared by its content
    admin = "(SELECT workbench_admin())"
    op.execute(
        "CREATE POLICY shared_rows ON artifacts FOR SELECT"
        " USING (kind NOT IN ('test_set', 'execution'))"
    )
    op.execute(
        f"CREATE POLICY own_rows ON artifacts USING ({admin} OR {_ARTIFACT})"
        f" WITH CHECK ({admin} OR {_ARTIFACT})"
    )


def _enforce(table: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def _share() -> None:
    op.execute("DROP POLICY shared_rows ON artifacts")
    for table in (*_POLICIES, *_OTHERS, "artifacts"):
        op.execute(f"DROP POLICY own_rows ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for function in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION {function}")


def upgrade() -> None:
    _add_jobs()
    every = "SELECT name, file, members, state, owner, started_at, finished_at"
    _key_experiments(
        "name", "owner", constraint="experiments_0005", rows=f"{every} FROM experiments_before"
    )
    op.create_index("test_sets_by_owner", "test_set_owners", ["owner", "created_at", "test_set"])
    for name, sqlite, postgres in _OF_ATTEMPTS:  # whoever watches counts these, again and again
        op.create_index(
            name, "attempts", ["execution", "target"],
            sqlite_where=sa.text(sqlite), postgresql_where=sa.text(postgres),
        )  # fmt: skip
    op.add_column("estimates", sa.Column("who", sa.String(200), nullable=False, server_default=""))
    op.execute(
        "UPDATE estimates SET who = COALESCE("
        "(SELECT MIN(ledger.who) FROM ledger WHERE ledger.job = estimates.job), '')"
    )
    if op.get_bind().dialect.name == "postgresql":
        _isolate()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        _share()
    op.drop_column("estimates", "who")
    op.drop_index("test_sets_by_owner", "test_set_owners")
    for name, _, _ in _OF_ATTEMPTS:
        op.drop_index(name, "attempts")
    newest = (  # the old schema knows one experiment of a name
        "SELECT name, file, members, state, owner, started_at, finished_at"
        " FROM experiments_before AS one WHERE owner = (SELECT other.owner"
        " FROM experiments_before AS other WHERE other.name = one.name"
        " ORDER BY other.started_at DESC, other.owner LIMIT 1)"
    )
    _key_experiments("name", constraint="experiments_0004", rows=newest)
    op.drop_table("jobs")
