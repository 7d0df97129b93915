#!/usr/bin/python
"""Ansible module: users, databases, extensions and schemas of a PostgreSQL cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_objects
short_description: Have users, databases, extensions and schemas in a PostgreSQL cluster of Debian
description:
  - Asks the running server what it has and changes only what differs, as the user V(postgres) over the local
    socket. Nothing but C(psql) is needed on the host.
  - Users and databases that are not listed are left alone; nothing is ever dropped.
  - A password is compared with the verifier that the server keeps, and is sent as a verifier, so it is in no
    log and in no list of processes.
  - A standby takes all of it from its primary, so nothing is done there.
attributes:
  check_mode:
    support: full
options:
  cluster:
    description: Name of the cluster.
    type: str
    default: main
  version:
    description: Major version of the cluster; empty for the only one that there is.
    type: str
    default: ""
  users:
    description: Users that may log in.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      password:
        description: Password, of printable ASCII characters. Without it the user can only come by the socket.
        type: str
      groups:
        description: Roles that the user is a member of; others are taken away. Left alone when it is not set.
        type: list
        elements: str
      replication:
        description: Whether the user may follow the server as a standby.
        type: bool
        default: false
  databases:
    description: Databases, made with UTF-8 and the locale C.UTF-8.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      owner:
        description: User that owns it. Others may not connect, but for members of it and of C(pg_monitor).
        type: str
        required: true
      extensions:
        description: Extensions of this database, besides O(extensions).
        type: list
        elements: str
        default: []
  extensions:
    description: Extensions of each of O(databases), and of the database V(postgres).
    type: list
    elements: str
    default: []
  schemas:
    description: Schemas with tables of one's own.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the schema.
        type: str
        required: true
      database:
        description: The database that it is in.
        type: str
        default: postgres
      sql:
        description:
          - Statements that make what is in it, run in one transaction, inside of the schema, whenever they
            changed. They must be able to run again.
        type: str
        required: true
author:
  - Fleetwatch
"""

EXAMPLES = r"""
- name: Have the database of the shop
  fleetwatch.monitoring.postgresql_objects:
    users:
      - name: shop
    databases:
      - name: shop
        owner: shop
    extensions: [pg_stat_statements]
"""

RETURN = r"""
done:
  description: What was changed, such as V(create database shop).
  returned: always
  type: list
  elements: str
"""

import base64  # noqa: E402 - Ansible's documentation blocks come first
import hashlib  # noqa: E402
import hmac  # noqa: E402
import re  # noqa: E402
import secrets  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils.postgresql import (  # noqa: E402
    NoServerError,
    PostgresError,
    Session,
    find_cluster,
    identifier,
    literal,
)

ITERATIONS = 4096
_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)")
_PRINTABLE = re.compile(r"[ -~]+")

USERS = """
    SELECT rolname AS name, rolcanlogin AS login, rolreplication AS replication, rolpassword AS verifier,
           ARRAY(SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                 WHERE m.member = a.oid) AS groups
    FROM pg_authid a
"""
DATABASES = """
    SELECT datname AS name, pg_get_userbyid(datdba) AS owner,
           has_database_privilege('public', oid, 'CONNECT, TEMP') AS open,
           has_database_privilege('pg_monitor', oid, 'CONNECT') AS watched
    FROM pg_database
"""


def verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """Return what a server keeps of a password (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{parts[0]}${parts[1]}:{parts[2]}"


def is_verifier_of(kept: str | None, password: str) -> bool:
    """Whether the server keeps this password."""
    found = _VERIFIER.fullmatch(kept or "")
    if not found:
        return False
    return hmac.compare_digest(verifier(password, base64.b64decode(found[2]), int(found[1])), found[0])


class Objects:
    """What the task asks for, and the server that is to have it."""

    def __init__(self, session: Session, params: dict[str, Any], *, check_mode: bool) -> None:
        """Take the server and the task."""
        self.session = session
        self.params = params
        self.check_mode = check_mode
        self.done: list[str] = []

    def run(self) -> list[str]:
        """Have all of it, and return what was changed."""
        if self.session.is_standby():
            return []
        self._users()
        self._databases()
        self._extensions()
        for schema in self.params["schemas"]:
            self._schema(schema)
        return self.done

    def _do(self, what: str, sql: str, database: str = "postgres") -> None:
        self.done.append(what)
        if not self.check_mode:
            try:
                self.session.execute(sql, database)
            except PostgresError as error:
                raise PostgresError(f"cannot {what}: {error}") from None

    def _users(self) -> None:
        there = {row["name"]: row for row in self.session.rows(USERS)}
        for user in self.params["users"]:
            if user["name"] not in there:
                self._do(f"create user {user['name']}", f"CREATE ROLE {identifier(user['name'])} LOGIN")
        for user in self.params["users"]:  # all are there by now, so each may be a member of any other
            self._user(user, there.get(user["name"]) or {"login": True, "replication": False, "groups": []})

    def _user(self, user: dict[str, Any], there: dict[str, Any]) -> None:
        name, sql = user["name"], identifier(user["name"])
        if not there["login"]:
            self._do(f"let user {name} log in", f"ALTER ROLE {sql} LOGIN")
        if there["replication"] != user["replication"]:
            word = "REPLICATION" if user["replication"] else "NOREPLICATION"
            self._do(f"make user {name} {word}", f"ALTER ROLE {sql} {word}")
        password, kept = user["password"], there.get("verifier")
        if not password and kept:
            self._do(f"take the password from user {name}", f"ALTER ROLE {sql} PASSWORD NULL")
        elif password and not is_verifier_of(kept, password):
            new = literal(verifier(password, secrets.token_bytes(16)))
            self._do(f"set the password of user {name}", f"ALTER ROLE {sql} PASSWORD {new}")
        if user["groups"] is not None:
            for group in sorted(set(user["groups"]) - set(there["groups"])):
                self._do(f"add user {name} to {group}", f"GRANT {identifier(group)} TO {sql}")
            for group in sorted(set(there["groups"]) - set(user["groups"])):
                self._do(f"take user {name} out of {group}", f"REVOKE {identifier(group)} FROM {sql}")

    def _databases(self) -> None:
        there = {row["name"]: row for row in self.session.rows(DATABASES)}
        for database in self.params["databases"]:
            name, owner = database["name"], database["owner"]
            sql = identifier(name)
            if name not in there:
                self._do(
                    f"create database {name}",
                    f"CREATE DATABASE {sql} OWNER {identifier(owner)} TEMPLATE template0 ENCODING 'UTF8' "
                    "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'",
                )
            is_now = there.get(name) or {"owner": owner, "open": True, "watched": False}
            if is_now["owner"] != owner:
                self._do(
                    f"give database {name} to {owner}", f"ALTER DATABASE {sql} OWNER TO {identifier(owner)}"
                )
            if is_now["open"]:
                self._do(f"close database {name} to others", f"REVOKE ALL ON DATABASE {sql} FROM PUBLIC")
            if is_now["open"] or not is_now["watched"]:
                self._do(f"let pg_monitor into {name}", f"GRANT CONNECT ON DATABASE {sql} TO pg_monitor")

    def _extensions(self) -> None:
        wanted = {"postgres": self.params["extensions"]}
        wanted |= {
            one["name"]: self.params["extensions"] + one["extensions"] for one in self.params["databases"]
        }
        for database, extensions in wanted.items():
            if self.check_mode and f"create database {database}" in self.done:
                continue
            there = {
                row["name"] for row in self.session.rows("SELECT extname AS name FROM pg_extension", database)
            }
            for name in dict.fromkeys(extensions):
                if name not in there:
                    what = f"create extension {name} in {database}"
                    self._do(what, f"CREATE EXTENSION {identifier(name)}", database)

    def _schema(self, schema: dict[str, Any]) -> None:
        """Make what is in a schema; its comment says by which statements it was made."""
        name, database, sql = schema["name"], schema["database"], identifier(schema["name"])
        mark = f"made by Ansible, {hashlib.sha256(schema['sql'].encode()).hexdigest()}"
        query = f"SELECT obj_description(to_regnamespace({literal(sql)}), 'pg_namespace') AS mark"
        if self.session.rows(query, database)[0]["mark"] == mark:
            return
        statements = [
            "BEGIN",
            f"CREATE SCHEMA IF NOT EXISTS {sql}",
            f"SET LOCAL search_path TO {sql}, pg_catalog",
            schema["sql"].strip().rstrip(";") + "\n",  # its last line may be a comment
            f"COMMENT ON SCHEMA {sql} IS {literal(mark)}",
            "COMMIT;",
        ]
        self._do(f"make schema {name} in {database}", ";\n".join(statements), database)


def refuse_bad_passwords(users: list[dict[str, Any]]) -> None:
    """Refuse a password that clients may send in another form than it is kept.

    :raises PostgresError: it has other characters than printable ASCII.
    """
    for user in users:
        if user["password"] and not _PRINTABLE.fullmatch(user["password"]):
            raise PostgresError(
                f"postgresql_users: the password of {user['name']} has other characters than printable "
                "ASCII; choose one without them"
            )


def main() -> None:
    """Run the module."""
    name = {"type": "str", "required": True}
    texts = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "cluster": {"type": "str", "default": "main"},
            "version": {"type": "str", "default": ""},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": name,
                    "password": {"type": "str", "no_log": True},
                    "groups": texts,
                    "replication": {"type": "bool", "default": False},
                },
            },
            "databases": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": name, "owner": name, "extensions": texts | {"default": []}},
            },
            "extensions": texts | {"default": []},
            "schemas": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": name, "database": {"type": "str", "default": "postgres"}, "sql": name},
            },
        },
        supports_check_mode=True,
    )
    try:
        refuse_bad_passwords(module.params["users"])
        cluster = find_cluster(module.params["cluster"], module.params["version"])
        session = Session(module.run_command, cluster)
        done = Objects(session, module.params, check_mode=module.check_mode).run()
    except PostgresError as error:
        if module.check_mode and isinstance(error, NoServerError):  # an earlier task would have started it
            module.exit_json(changed=True, done=["all of it, once the server runs"])
        module.fail_json(msg=f"postgresql: {error}")
    module.exit_json(changed=bool(done), done=done)


if __name__ == "__main__":
    main()
