#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Ansible module: the login and password of Grafana's administrator, as they are wanted."""

from __future__ import annotations

DOCUMENTATION = r"""
module: grafana_admin
short_description: Have Grafana's first administrator log in with the login and password that are wanted
description:
  - Grafana reads C(admin_user) and C(admin_password) only when it makes its database. This module logs in
    with what
    is wanted. Where that fails, it sets the password with C(grafana cli admin reset-admin-password) and, if
    necessary, renames the account, and then logs in to prove it.
  - The password goes to the command on its standard input, never on a command line.
options:
  url:
    description: URL of Grafana on this host.
    type: str
    required: true
  certificate:
    description: Certificate file that Grafana uses, if the URL is C(https).
    type: path
  user:
    description: Login that the administrator is to have.
    type: str
    required: true
  password:
    description: Password that the administrator is to have.
    type: str
    required: true
  home:
    description: Folder of the installed Grafana.
    type: path
    required: true
  config:
    description: Grafana's configuration file.
    type: path
    default: /etc/grafana/grafana.ini
  run_as:
    description: User that Grafana runs as, who owns its database.
    type: str
    default: grafana
attributes:
  check_mode:
    support: full
author: The Fleetwatch authors (@fleetwatch)
"""

EXAMPLES = r"""
- name: Have the administrator's password
  fleetwatch.monitoring.grafana_admin:
    url: http://127.0.0.1:3000
    user: admin
    password: "{{ vault_grafana_admin_password }}"
    home: /usr/share/grafana
"""

RETURN = r"""
done:
  description: What was changed, V(password) and V(login).
  returned: always
  type: list
  elements: str
"""

from typing import Any  # noqa: E402 - Ansible's documentation blocks come first

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import local_http  # noqa: E402

UNAUTHORIZED = 401
FIRST_NAMES = ("admin", "admin@localhost")
"""Login and address that Grafana gives its first user by default; either logs in."""


class AdminError(Exception):
    """What went wrong and the cure."""


class Admin:
    """The account, through Grafana's API and its command line."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take the module and its parameters."""
        self.module = module
        self.params: dict[str, Any] = module.params

    def run(self) -> list[str]:
        """Have the account as wanted and return what was changed."""
        try:
            account = self.account(self.params["user"])
        except OSError:
            if self.module.check_mode:  # not installed yet
                return ["password"]
            raise
        if account:
            self.must_be_admin(account)
            return []
        if self.module.check_mode:
            return ["password"]
        self.reset_password()
        account = self.account(self.params["user"])
        if account:
            self.must_be_admin(account)
            return ["password"]
        self.rename()
        return ["password", "login"]

    def account(self, user: str) -> dict[str, Any] | None:
        """Return the account that a login and the wanted password open, or None."""
        try:
            found: dict[str, Any] = self._call("GET", "/api/user", user)
        except local_http.HttpError as error:
            if error.status == UNAUTHORIZED:
                return None
            raise
        return found

    def must_be_admin(self, account: dict[str, Any]) -> None:
        """Refuse an account that may not administer the server."""
        if not account.get("isGrafanaAdmin"):
            raise AdminError(
                f"grafana_admin_user: {self.params['user']} is an ordinary user of this Grafana, not its "
                "administrator; choose another login"
            )

    def reset_password(self) -> None:
        """Set the password of the first user in the database."""
        program = f"{self.params['home']}/bin/grafana"
        options = ["--homepath", self.params["home"], "--config", self.params["config"]]
        command = [program, "cli", *options, "admin", "reset-admin-password", "--password-from-stdin"]
        code, out, err = self.module.run_command(
            ["runuser", "-u", self.params["run_as"], "--", *command],
            data=f"{self.params['password']}\n",
            binary_data=True,
            cwd=self.params["home"],
        )
        if code:
            words = (err.strip() or out.strip()).replace(self.params["password"], "********")
            raise AdminError(f"the administrator's password could not be set; grafana cli says:\n{words}")

    def rename(self) -> None:
        """Give the first user, who has the wanted password by now, the wanted login."""
        for name in FIRST_NAMES:
            account = self.account(name)
            if account and account.get("isGrafanaAdmin"):
                profile = {key: account.get(key) or "" for key in ("name", "email")}
                self._call("PUT", "/api/user", name, {**profile, "login": self.params["user"]})
                if self.account(self.params["user"]):
                    return
        raise AdminError(
            f"the login {self.params['user']} does not work with the password that was just set. If the "
            "administrator was renamed in Grafana, set grafana_admin_user to that login; if somebody tried "
            "passwords, Grafana locks the account for five minutes"
        )

    def _call(self, method: str, path: str, user: str, body: Any = None) -> Any:
        login = (user, self.params["password"])
        url = f"{self.params['url']}{path}"
        return local_http.get(
            url, method=method, login=login, body=body, certificate=self.params["certificate"]
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "certificate": {"type": "path"},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "home": {"type": "path", "required": True},
            "config": {"type": "path", "default": "/etc/grafana/grafana.ini"},
            "run_as": {"type": "str", "default": "grafana"},
        },
        supports_check_mode=True,
    )
    try:
        done = Admin(module).run()
    except (AdminError, OSError) as error:
        module.fail_json(msg=f"Grafana: {error}")
    module.exit_json(changed=bool(done), done=done)


if __name__ == "__main__":
    main()
