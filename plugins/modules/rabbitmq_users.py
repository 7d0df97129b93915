#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Ansible module: who may log in to the RabbitMQ of this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_users
short_description: Have exactly these users in RabbitMQ
description:
  - Makes users, their permissions and the virtual hosts that they need, and removes every other user, such as
    C(guest), which RabbitMQ makes with a password that everybody knows.
  - Virtual hosts that nobody needs stay, since they may hold messages.
  - RabbitMQ is told salted sums of passwords, in a file that only it can read, never on a command line.
  - Needs to run as root on the host of a RabbitMQ that is up.
options:
  users:
    description: All users that there are to be.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      password:
        description: The user's password; not empty.
        type: str
        required: true
      vhost:
        description: The only virtual host that the user may enter.
        type: str
        default: /
      configure:
        description: Regular expression of the queues and exchanges that the user may make and delete.
        type: str
        default: .*
      write:
        description: Regular expression of those that the user may send to.
        type: str
        default: .*
      read:
        description: Regular expression of those that the user may take messages from.
        type: str
        default: .*
      tags:
        description: Tags of the user, such as V(monitoring).
        type: list
        elements: str
        default: []
attributes:
  check_mode:
    description: A RabbitMQ that is not installed or not up yet is passed over in check mode.
    support: full
  diff_mode:
    description: Shows names and permissions, never passwords.
    support: full
author: The Fleetwatch authors (@fleetwatch)
"""

EXAMPLES = r"""
- name: Let in the shop, and nobody else
  fleetwatch.monitoring.rabbitmq_users:
    users:
      - name: shop
        password: "{{ vault_rabbitmq_shop_password }}"
"""

RETURN = r""" # """

import base64  # noqa: E402 - Ansible's documentation blocks come first
import hashlib  # noqa: E402
import hmac  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import pwd  # noqa: E402
import tempfile  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

ALGORITHM = "rabbit_password_hashing_sha256"
SALT_BYTES = 4
RIGHTS = ("configure", "write", "read")
ACCOUNT = "rabbitmq"
"""As whom ``rabbitmqctl`` runs when root calls it."""
DOWN = 69
"""How ``rabbitmqctl`` ends when RabbitMQ is not up."""
TIMEOUT_SECONDS = 300
"""For one command; each starts an Erlang of its own, which takes a while on a busy host."""

Entry = dict[str, Any]


def password_hash(password: str, salt: bytes) -> str:
    """Return the salted sum of a password as RabbitMQ keeps it."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def knows_password(user: Entry, password: str) -> bool:
    """Whether a user of RabbitMQ's definitions has this password."""
    if user.get("hashing_algorithm") != ALGORITHM:
        return False
    salt = base64.b64decode(user["password_hash"])[:SALT_BYTES]
    return hmac.compare_digest(user["password_hash"], password_hash(password, salt))


def permission(user: Entry) -> Entry:
    """Return the permission of a wanted user as it is in RabbitMQ's definitions."""
    return {"user": user["name"], "vhost": user["vhost"], **{right: user[right] for right in RIGHTS}}


class Plan:
    """What is to change so that RabbitMQ has the wanted users only."""

    def __init__(self, users: list[Entry], definitions: Entry) -> None:
        """Compare the wanted users with RabbitMQ's definitions."""
        present = {user["name"]: user for user in definitions.get("users", [])}
        vhosts = {vhost["name"] for vhost in definitions.get("vhosts", [])}
        permissions = definitions.get("permissions", [])
        wanted = {user["name"] for user in users}
        self.vhosts = sorted({user["vhost"] for user in users} - vhosts)
        self.users = [
            user
            for user in users
            if user["name"] not in present
            or not knows_password(present[user["name"]], user["password"])
            or sorted(present[user["name"]]["tags"]) != sorted(user["tags"])
        ]
        self.permissions = [entry for entry in map(permission, users) if entry not in permissions]
        self.unwanted_users = sorted(present.keys() - wanted)
        places = {(user["name"], user["vhost"]) for user in users}
        self.unwanted_permissions = sorted(
            (entry["user"], entry["vhost"])
            for entry in permissions
            if entry["user"] in wanted and (entry["user"], entry["vhost"]) not in places
        )

    @property
    def definitions(self) -> Entry:
        """What RabbitMQ is to take in, as definitions of its own format; empty for nothing."""
        users = [
            {
                "name": user["name"],
                "password_hash": password_hash(user["password"], os.urandom(SALT_BYTES)),
                "hashing_algorithm": ALGORITHM,
                "tags": user["tags"],
                "limits": {},
            }
            for user in self.users
        ]
        found = {
            "vhosts": [{"name": name} for name in self.vhosts],
            "users": users,
            "permissions": self.permissions,
        }
        return {kind: entries for kind, entries in found.items() if entries}

    @property
    def lines(self) -> list[str]:
        """The changes, one sentence each, without secrets."""
        return [
            *(f"make the virtual host {name}" for name in self.vhosts),
            *(f"set password and tags of {user['name']}" for user in self.users),
            *(f"let {entry['user']} into {entry['vhost']}" for entry in self.permissions),
            *(f"keep {user} out of {vhost}" for user, vhost in self.unwanted_permissions),
            *(f"remove the user {name}" for name in self.unwanted_users),
        ]


class Control:
    """RabbitMQ's command."""

    def __init__(self, module: AnsibleModule, program: str) -> None:
        """Take the path of ``rabbitmqctl``."""
        self.module = module
        self.program = program

    def run(self, *arguments: str) -> str:
        """Run the command and return what it says."""
        limited = ["timeout", str(TIMEOUT_SECONDS), self.program, "--silent", *arguments]
        code, out, err = self.module.run_command(limited)
        if code == DOWN and self.module.check_mode:
            self.module.exit_json(changed=True)
        if code:
            reason = err.strip() or out.strip() or f"no answer within {TIMEOUT_SECONDS} s"
            self.module.fail_json(msg=f"rabbitmqctl {arguments[0]} failed: {reason}")
        return str(out)

    def take(self, definitions: Entry) -> None:
        """Have RabbitMQ take definitions, from a file: Debian 13's command hangs on its standard input."""
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir="/tmp") as file:
            json.dump(definitions, file)
            file.flush()
            account = pwd.getpwnam(ACCOUNT)
            os.chown(file.name, account.pw_uid, account.pw_gid)
            self.run("import_definitions", file.name)


def mistakes(users: list[Entry]) -> list[str]:
    """Return a sentence for each thing that is wrong with the list of users."""
    names = [user["name"] for user in users]
    twice = sorted({name for name in names if names.count(name) > 1})
    return [
        *(f"the user {name} is listed twice; leave one" for name in twice),
        *(
            f"the password of {user['name']} is empty; set it, in the vault"
            for user in users
            if not user["password"]
        ),
    ]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "users": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "vhost": {"type": "str", "default": "/"},
                    **{right: {"type": "str", "default": ".*"} for right in RIGHTS},
                    "tags": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    users = module.params["users"]
    if wrong := mistakes(users):
        module.fail_json(msg=f"rabbitmq_users: {'; '.join(wrong)}. Nothing was changed.")
    program = module.get_bin_path("rabbitmqctl", required=not module.check_mode)
    if not program:
        module.exit_json(changed=True)
    control = Control(module, program)
    plan = Plan(users, json.loads(control.run("export_definitions", "-")))
    if plan.lines and not module.check_mode:
        if plan.definitions:
            control.take(plan.definitions)
        for user, vhost in plan.unwanted_permissions:
            control.run("clear_permissions", "-p", vhost, user)
        for name in plan.unwanted_users:
            control.run("delete_user", name)
    after = "".join(f"{line}\n" for line in plan.lines)
    module.exit_json(changed=bool(plan.lines), diff={"before": "", "after": after})


if __name__ == "__main__":
    main()
