"""The module that says who may log in to RabbitMQ, with a stand-in for ``rabbitmqctl``."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fleetwatch.monitoring.plugins.modules import rabbitmq_users

pytestmark = pytest.mark.slow  # each starts Python several times

GUEST = {
    "name": "guest",
    "password_hash": rabbitmq_users.password_hash("guest", b"salt"),
    "hashing_algorithm": rabbitmq_users.ALGORITHM,
    "tags": ["administrator"],
    "limits": {},
}
FRESH = {
    "users": [GUEST],
    "vhosts": [{"name": "/"}],
    "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
}
# Keeps definitions in a file, and what it was called with and read in another.
STANDIN = """#!{python}
import json, pathlib, sys
kept = pathlib.Path({folder!r}) / "definitions.json"
definitions = json.loads(kept.read_text())
arguments = sys.argv[2:]
assert sys.argv[1] == "--silent"
with (kept.parent / "calls").open("a") as calls:
    print(*arguments, file=calls)
def merge(kind, new, *keys):
    rest = [old for old in definitions[kind] if any(old[key] != new[key] for key in keys)]
    definitions[kind] = [*rest, new]
match arguments:
    case ["export_definitions", "-"]:
        print(json.dumps(definitions))
    case ["import_definitions", file]:
        path = pathlib.Path(file)
        text = path.read_text()
        (kept.parent / "taken").write_text(f"{{path.stat().st_mode & 0o777:o}} {{path}} {{text}}")
        for kind, keys in {{"vhosts": ["name"], "users": ["name"], "permissions": ["user", "vhost"]}}.items():
            for new in json.loads(text).get(kind, []):
                merge(kind, new, *keys)
    case ["clear_permissions", "-p", vhost, user]:
        definitions["permissions"] = [
            old for old in definitions["permissions"] if (old["user"], old["vhost"]) != (user, vhost)
        ]
    case ["delete_user", name]:
        definitions["users"] = [old for old in definitions["users"] if old["name"] != name]
        definitions["permissions"] = [old for old in definitions["permissions"] if old["user"] != name]
    case _:
        sys.exit(f"Error: unknown command {{arguments}}")
kept.write_text(json.dumps(definitions))
"""


class DoneError(Exception):
    """The module ended well."""


class FailedError(Exception):
    """The module failed."""


class Broker:
    """A stand-in for ``rabbitmqctl`` and its definitions in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        program = folder / "rabbitmqctl"
        program.write_text(STANDIN.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
        self.keep(FRESH)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr(rabbitmq_users, "ACCOUNT", "root" if os.getuid() == 0 else os.environ["USER"])

    def keep(self, definitions: dict[str, Any]) -> None:
        (self.folder / "definitions.json").write_text(json.dumps(definitions))

    @property
    def definitions(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "definitions.json").read_text())
        return found

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def has(self, user: str, password: str) -> bool:
        found = {entry["name"]: entry for entry in self.definitions["users"]}
        return user in found and rabbitmq_users.knows_password(found[user], password)

    def run(self, *users: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
        """Run the whole module, as Ansible would."""
        arguments = {"users": list(users), "_ansible_check_mode": check_mode, "_ansible_remote_tmp": "/tmp"}  # noqa: S108
        self.monkeypatch.setattr(
            "ansible.module_utils.basic._ANSIBLE_ARGS",
            json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode(),
        )
        self.monkeypatch.setattr("ansible.module_utils.basic._ANSIBLE_PROFILE", "legacy", raising=False)

        def done(_: Any, **result: Any) -> NoReturn:
            raise DoneError(result)

        def failed(_: Any, msg: str, **__: Any) -> NoReturn:
            raise FailedError(msg)

        self.monkeypatch.setattr(AnsibleModule, "exit_json", done)
        self.monkeypatch.setattr(AnsibleModule, "fail_json", failed)
        with pytest.raises(DoneError) as caught:
            rabbitmq_users.main()
        result: dict[str, Any] = caught.value.args[0]
        return result


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker(tmp_path, monkeypatch)


SHOP = {"name": "shop", "password": "of the shop"}


def test_the_sum_of_a_password_is_the_one_of_rabbitmqs_documentation() -> None:
    assert rabbitmq_users.password_hash("test12", bytes.fromhex("908DC60A")) == (
        "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )


def test_a_user_is_made_and_guest_is_gone(broker: Broker) -> None:
    assert broker.run(SHOP)["changed"]
    assert [user["name"] for user in broker.definitions["users"]] == ["shop"]
    assert broker.has("shop", "of the shop")
    assert broker.definitions["permissions"] == [
        {"user": "shop", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    ]


def test_a_second_run_changes_nothing(broker: Broker) -> None:
    broker.run(SHOP)
    (broker.folder / "calls").unlink()
    assert not broker.run(SHOP)["changed"]
    assert broker.calls == ["export_definitions -"]


def test_a_new_password_and_new_tags_are_taken(broker: Broker) -> None:
    broker.run(SHOP)
    assert broker.run(SHOP | {"password": "another"})["changed"]
    assert broker.has("shop", "another")
    assert broker.run(SHOP | {"password": "another", "tags": ["monitoring"]})["changed"]
    assert broker.definitions["users"][0]["tags"] == ["monitoring"]


def test_a_user_who_moves_leaves_the_old_virtual_host(broker: Broker) -> None:
    broker.run(SHOP)
    result = broker.run(SHOP | {"vhost": "orders", "read": "^orders"})
    assert result["diff"]["after"] == (
        "make the virtual host orders\nlet shop into orders\nkeep shop out of /\n"
    )
    assert broker.definitions["permissions"] == [
        {"user": "shop", "vhost": "orders", "configure": ".*", "write": ".*", "read": "^orders"}
    ]
    assert {vhost["name"] for vhost in broker.definitions["vhosts"]} == {"/", "orders"}


def test_nobody_is_let_in_without_users(broker: Broker) -> None:
    assert broker.run()["changed"]
    assert broker.definitions["users"] == []
    assert broker.calls == ["export_definitions -", "delete_user guest"]


def test_a_check_changes_nothing_and_tells_no_password(broker: Broker) -> None:
    result = broker.run(SHOP, check_mode=True)
    assert result["changed"]
    assert "set password and tags of shop" in result["diff"]["after"]
    assert SHOP["password"] not in str(result)
    assert broker.definitions == FRESH


def test_no_password_is_on_a_command_line_or_in_a_file_of_others(broker: Broker) -> None:
    broker.run(SHOP)
    mode, path, text = (broker.folder / "taken").read_text().split(" ", 2)
    assert int(mode, 8) == stat.S_IRUSR | stat.S_IWUSR
    assert not Path(path).exists()
    assert SHOP["password"] not in text
    assert SHOP["password"] not in "".join(broker.calls)


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ([SHOP, SHOP], "the user shop is listed twice"),
        ([SHOP | {"password": ""}], "the password of shop is empty; set it, in the vault"),
    ],
)
def test_a_wrong_list_is_refused_before_anything_is_asked(
    broker: Broker, users: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(FailedError, match=said):
        broker.run(*users)
    assert not (broker.folder / "calls").exists()


def test_the_words_of_a_command_that_fails_are_told(broker: Broker) -> None:
    (broker.folder / "rabbitmqctl").write_text("#!/bin/sh\necho 'Error: no node' >&2\nexit 69\n")
    with pytest.raises(FailedError, match="rabbitmqctl export_definitions failed: Error: no node"):
        broker.run(SHOP)


def test_a_check_passes_over_a_rabbitmq_that_is_not_up(broker: Broker) -> None:
    (broker.folder / "rabbitmqctl").write_text("#!/bin/sh\necho 'Error: no node' >&2\nexit 69\n")
    assert broker.run(SHOP, check_mode=True) == {"changed": True}
    (broker.folder / "rabbitmqctl").write_text("#!/bin/sh\necho 'Error: no cookie' >&2\nexit 70\n")
    with pytest.raises(FailedError, match="no cookie"):
        broker.run(SHOP, check_mode=True)
