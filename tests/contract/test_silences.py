"""Silences that the module and the playbooks make are those of the real Alertmanager."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.fleetwatch.monitoring.plugins.modules import alertmanager_silence as module
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils import silences

from tests.common.services import call, free_port, wait_until
from tests.contract.alertmanager import Alertmanager

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:1"
HOST_DOWN = {
    "source_matchers": ['alertname = "NodeDown"', 'host != ""'],
    "target_matchers": ['alertname != "NodeDown"'],
    "equal": ["host"],
}
Start = Callable[..., Alertmanager]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts an Alertmanager, called "am" unless it gets another name."""
    with ExitStack() as running:

        def start(name: str = "am", **options: Any) -> Alertmanager:
            alertmanager = Alertmanager(tmp_path / name, NOBODY, **options)
            running.callback(alertmanager.kill)
            alertmanager.start()
            return alertmanager

        yield start


def ask(
    *urls: str, state: str = "present", hosts: tuple[str, ...] = ("web1",), **other: Any
) -> dict[str, Any]:
    asked = {
        "state": state,
        "matchers": silences.matchers_of(list(hosts), other.pop("alerts", []), other.pop("extra", [])),
        "seconds": 600.0,
        "starts": None,
        "comment": "new disk" if state == "present" else "",
        "created_by": "maria",
        "id": "",
    }
    return module.run(list(urls), module.Wanted.of(asked | other), change=True)


def states(am: Alertmanager) -> dict[tuple[str, str], str]:
    """Return what mutes each alert: alertname and host -> silence, inhibition, or nothing."""
    found = {}
    for alert in call("GET", f"{am.url}/api/v2/alerts").json:
        status, labels = alert["status"], alert["labels"]
        how = "silence" if status["silencedBy"] else "inhibition" if status["inhibitedBy"] else ""
        found[labels["alertname"], labels.get("host", "")] = how
    return found


def silences_of(am: Alertmanager) -> list[dict[str, Any]]:
    return module.Alertmanager(am.url).silences()


def cluster(start: Start) -> list[Alertmanager]:
    ports = [free_port(), free_port()]
    pair = [start(f"am{number}", peers=ports, cluster_port=port) for number, port in enumerate(ports, 1)]
    wait_until(lambda: all(am.members == 2 for am in pair), what="they found each other")
    return pair


def test_exactly_the_alerts_of_the_hosts_are_silenced(start: Start) -> None:
    am = start()
    for host in ("web.1", "webx1", "db-2", "db-22"):
        am.fire("NodeDown", "AlertReceiverNotificationsParked", host=host)
    am.fire("Watchdog", "TargetDown")
    ask(am.url, hosts=("web.1", "db-2"))
    expected = {("NodeDown", "web.1"): "silence", ("NodeDown", "db-2"): "silence"}
    wait_until(lambda: {key: how for key, how in states(am).items() if how} == expected)
    assert len(states(am)) == 10


def test_one_alert_of_a_host_with_a_label(start: Start) -> None:
    am = start()
    am.fire("UnitFailed", "NodeDown", host="web1", name="shop.service")
    am.fire("UnitFailed", host="web2", name="shop.service")
    ask(am.url, alerts=["UnitFailed"], extra=['name="shop.service"'])
    wait_until(lambda: states(am)["UnitFailed", "web1"] == "silence")
    assert states(am)["NodeDown", "web1"] == states(am)["UnitFailed", "web2"] == ""


def test_a_host_that_is_down_mutes_its_other_alerts_though_it_is_silenced_itself(start: Start) -> None:
    am = start(config={"inhibit_rules": [HOST_DOWN]})
    am.fire("NodeDown", "HighLoad", host="web1")
    ask(am.url, alerts=["NodeDown"])
    wait_until(lambda: states(am) == {("NodeDown", "web1"): "silence", ("HighLoad", "web1"): "inhibition"})


def test_it_is_kept_made_longer_and_ended(start: Start) -> None:
    am = start()
    (made,) = ask(am.url)["touched"]
    assert ask(am.url)["changed"] is False
    (longer,) = ask(am.url, seconds=7200.0)["touched"]
    assert longer["id"] == made["id"], "it is the same silence, not a second one"
    assert [(s["id"], s["createdBy"]) for s in silences_of(am)] == [(made["id"], "maria (ansible)")]
    by_hand = am.silence("host=web1")
    assert ask(am.url, state="absent")["changed"] is True
    assert [silence["id"] for silence in silences_of(am)] == [by_hand]
    assert ask(am.url, state="absent", id=by_hand)["silences"] == []


def test_planned_maintenance_waits_for_its_time(start: Start) -> None:
    am = start()
    am.fire("NodeDown", host="web1")
    for _ in range(2):
        planned = ask(am.url, starts="2037-01-31T22:00:00+01:00")
        assert [silence["state"] for silence in planned["silences"]] == ["pending"]
    assert planned["changed"] is False
    assert planned["lines"][0].startswith("from 2037-01-31 21:00 UTC to 2037-01-31 21:10 UTC: ")
    ask(am.url, starts="2037-01-31T22:00:00+01:00", seconds=1200.0)
    assert [silence["endsAt"][:16] for silence in silences_of(am)] == ["2037-01-31T21:20"]
    assert states(am) == {("NodeDown", "web1"): ""}


def test_what_alertmanager_refuses_comes_in_its_words(start: Start) -> None:
    am = start()
    with pytest.raises(module.RefusedError, match="error parsing regexp"):
        ask(am.url, extra=["a=~("])
    assert silences_of(am) == []


def test_a_cluster_knows_what_one_of_it_was_told(start: Start) -> None:
    one, two = cluster(start)
    (made,) = ask(one.url, two.url)["touched"]
    wait_until(lambda: [silence["id"] for silence in silences_of(two)] == [made["id"]])
    ask(two.url, one.url, state="absent")
    wait_until(lambda: silences_of(one) == [])
    one.kill()
    again = ask(one.url, two.url)
    assert (again["changed"], len(silences_of(two)), len(again["warnings"])) == (True, 1, 1)
    one.start()
    wait_until(lambda: len(silences_of(one)) == 1, what="who was down hears of it")


def test_two_that_are_no_cluster_are_both_told(start: Start) -> None:
    pair = [start("am1"), start("am2")]
    urls = [am.url for am in pair]
    assert len(ask(*urls)["touched"]) == 2
    assert ask(*urls)["changed"] is False
    assert [len(silences_of(am)) for am in pair] == [1, 1]
    ask(*urls, state="absent")
    assert [silences_of(am) for am in pair] == [[], []]


# The playbooks


@dataclass
class Run:
    code: int
    output: str

    @property
    def text(self) -> str:
        """The output without its line breaks, which depend on the width."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> int:
        return sum(map(int, (line.partition("changed=")[2].split()[0] for line in self._recap)))

    @property
    def _recap(self) -> list[str]:
        return [line for line in self.output.splitlines() if "changed=" in line]


class Site:
    """A copy of the playbooks beside a site.yml that does nothing, and an inventory whose hosts are here."""

    def __init__(self, folder: Path, *alertmanager_ports: int) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "playbooks", folder / "playbooks")
        self.let_site_yml("run")
        (folder / "playbooks/verify.yml").write_text("- hosts: all\n  gather_facts: false\n")
        names = [f"monitor{number}" for number, _ in enumerate(alertmanager_ports, 1)]
        inventory = {
            "all": {
                "vars": {
                    "ansible_connection": "local",
                    "ansible_python_interpreter": sys.executable,
                    "ansible_remote_tmp": str(folder / "tmp"),
                    "fleetwatch_address": "127.0.0.1",
                }
            },
            "node_exporter": {"hosts": {"web1": {}, "web2": {}}},
            "webservers": {"hosts": {"web1": {}, "web2": {}}},
            "prometheus": {"hosts": {name: {} for name in names[:1]}},
            "alertmanager": {
                "hosts": {
                    name: {"alertmanager_port": port}
                    for name, port in zip(names, alertmanager_ports, strict=True)
                }
            },
        }
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def let_site_yml(self, what: str, *, failing: str = "") -> None:
        """Let site.yml ask Alertmanager for its silences (``what`` is a URL), and fail on some hosts."""
        look: dict[str, Any] = {"ansible.builtin.debug": {"msg": "site.yml runs"}}
        if what.startswith("http"):
            look = {
                "ansible.builtin.uri": {"url": f"{what}/api/v2/silences", "dest": str(self.folder / "seen")},
                "run_once": True,
            }
        fail = {
            "ansible.builtin.fail": {"msg": "broken"},
            "when": f"inventory_hostname is match('^({failing})$')",
        }
        play = {"hosts": "all", "gather_facts": False, "tasks": [look, *([fail] if failing else [])]}
        (self.folder / "site.yml").write_text(yaml.safe_dump([play]))

    @property
    def seen(self) -> list[dict[str, Any]]:
        """Return the silences that were active while site.yml ran."""
        found = json.loads((self.folder / "seen").read_text())
        return [silence for silence in found if silence["status"]["state"] == "active"]

    def play(self, playbook: str, *arguments: str) -> Run:
        done = subprocess.run(  # noqa: S603 - the command is ours
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "-i",
                self.folder / "hosts.yml",
                self.folder / "playbooks" / f"{playbook}.yml",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            cwd=self.folder,
            env=os.environ
            | {
                "ANSIBLE_COLLECTIONS_PATH": f"{ROOT}/collections",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
                "SUDO_USER": "maria",
            },
        )
        return Run(done.returncode, done.stdout)

    def silence(self, *settings: str) -> Run:
        return self.play("silence", *(word for setting in settings for word in ("-e", setting)))


def test_the_playbook_silences_lists_and_ends(start: Start, tmp_path: Path) -> None:
    am = start()
    site = Site(tmp_path / "site", am.port)
    ask_for = ("silence_hosts=webservers", "silence_duration=30m", "silence_comment='new disk'")

    run = site.silence(*ask_for)
    assert (run.code, run.changed) == (0, 1), run.output
    (silence,) = silences_of(am)
    assert module.shown(silence)["matchers"].endswith('host=~"^(web1|web2)$"')
    assert (silence["createdBy"], silence["comment"]) == ("maria (ansible)", "new disk")
    assert f"[{silence['id']}]" in run.text

    run = site.silence(*ask_for, "silence_alert=NodeDown")
    assert (run.code, run.changed) == (0, 1)
    assert (site.silence(*ask_for).changed, len(silences_of(am))) == (0, 2)
    listed = site.silence("silence_state=list")
    assert listed.changed == 0
    assert "There are 2 silences." in listed.text
    assert "until 20" in listed.text

    assert site.silence("silence_state=absent", "silence_hosts=web1,web2").changed == 1
    assert [s["id"] for s in silences_of(am)] != [silence["id"]]
    (rest,) = silences_of(am)
    assert site.silence("silence_state=absent", f"silence_id={rest['id']}").changed == 1
    assert silences_of(am) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["silence_hosts=web3", "silence_comment=x"], "no host or group 'web3'; did you mean web"),
        (["silence_hosts=web1"], "comment: it is missing"),
        (
            ["silence_hosts=web1", "silence_comment=new disk"],
            "Ansible cut a setting at a space and lost 'disk'",
        ),
        (
            ["silence_host=web1", "silence_comment=x"],
            "silence_host: no such setting. There are silence_alert",
        ),
        (["silence_alert=NodeDwn", "silence_comment=x"], "no alert 'NodeDwn'; did you mean NodeDown?"),
        (["silence_hosts=web1", "silence_comment=x", "silence_duration=2"], "'2' is not a duration"),
        (["silence_comment=x"], "everything would be"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    start: Start, tmp_path: Path, settings: list[str], words: str
) -> None:
    am = start()
    run = Site(tmp_path / "site", am.port).silence(*settings)
    assert run.code == 2
    (error,) = [line for line in run.output.splitlines() if line.startswith("[ERROR]")]
    assert words in error
    assert silences_of(am) == []


def test_alerts_that_only_the_inventory_knows_can_be_silenced(start: Start, tmp_path: Path) -> None:
    am = start()
    site = Site(tmp_path / "site", am.port)
    own = {"name": "own", "rules": [{"alert": "ShopSlow", "expr": "up"}]}
    promise = {"service": "shop", "name": "availability", "objective": 99.9}
    queries = {"errors": "rate(errors_total[$window])", "total": "rate(requests_total[$window])"}
    variables = {"prometheus_extra_rules": {"own": {"groups": [own]}}, "fleetwatch_slos": [promise | queries]}
    (site.folder / "group_vars").mkdir()
    (site.folder / "group_vars/prometheus.yml").write_text(yaml.safe_dump(variables))
    run = site.silence("silence_alert=ShopSlow,ErrorBudgetBurnFast", "silence_comment=x")
    assert run.code == 0, run.output
    (silence,) = silences_of(am)
    assert module.shown(silence)["matchers"] == 'alertname=~"^(ErrorBudgetBurnFast|ShopSlow)$"'
    assert "did you mean ShopSlow?" in site.silence("silence_alert=ShopSlw", "silence_comment=x").text


def test_the_next_host_is_asked_when_the_first_does_not_answer(start: Start, tmp_path: Path) -> None:
    am = start()
    site = Site(tmp_path / "site", free_port(), am.port)
    hosts = yaml.safe_load((site.folder / "hosts.yml").read_text())
    hosts["alertmanager"]["hosts"]["monitor1"] |= {"ansible_connection": "ssh", "ansible_port": 1}
    (site.folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    run = site.silence("silence_hosts=web1", "silence_comment=x")
    assert (run.code, len(silences_of(am))) == (0, 1), run.output
    am.kill()
    run = site.silence("silence_hosts=web1", "silence_comment=x")
    assert run.code == 2
    assert "monitor1 cannot" in run.text
    assert "No Alertmanager answers." in run.text


def test_an_upgrade_is_silent_and_then_heard_again(start: Start, tmp_path: Path) -> None:
    am = start()
    site = Site(tmp_path / "site", am.port)
    site.let_site_yml(am.url)
    run = site.play("upgrade", "--limit", "web1")
    assert run.code == 0, run.output
    (seen,) = map(module.shown, site.seen)
    assert seen["matchers"].endswith('host="web1"'), "the limit counts"
    assert seen["comment"] == "upgrade"
    assert f"Ended the silence {seen['id']}." in run.text
    assert silences_of(am) == []


@pytest.mark.parametrize(("failing", "told"), [("web1", "The upgrade failed on web1."), (".*", "")])
def test_an_upgrade_that_fails_leaves_the_silence_to_its_end(
    start: Start, tmp_path: Path, failing: str, told: str
) -> None:
    am = start()
    site = Site(tmp_path / "site", am.port)
    site.let_site_yml("run", failing=failing)
    run = site.play("upgrade", "-e", "upgrade_silence_duration=20m")
    assert run.code == 2
    (silence,) = silences_of(am)
    assert "if not, it ends by itself then" in run.text
    assert told in run.text
    assert module.shown(silence)["ends"] in run.text

    site.let_site_yml("run")  # the second attempt goes well
    run = site.play("upgrade", "-e", "upgrade_silence_duration=20m")
    assert (run.code, silences_of(am)) == (0, [])
    assert "Already silenced" in run.text


def test_an_upgrade_needs_no_alertmanager_but_good_settings(tmp_path: Path) -> None:
    for number, ports in enumerate(([], [free_port()])):
        site = Site(tmp_path / f"site{number}", *ports)
        run = site.play("upgrade")
        assert run.code == 0, run.output
        assert "Nothing is silenced." in run.text
        assert "site.yml runs" in run.text
    run = site.play("upgrade", "-e", "upgrade_silence_duration=soon")
    assert run.code == 2
    assert "'soon' is not a duration" in run.text
    assert "site.yml runs" not in run.text
