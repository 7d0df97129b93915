"""What is read from this machine's apt."""

import pytest

from lab import apt
from lab.console import LabError

MAIN = "http://mirror.example/debian/\tbookworm\tmain\tDebian\tDebian"
UPDATES = "http://mirror.example/debian/\tbookworm-updates\tmain\tDebian\tDebian"
SECURITY = "http://security.example/debian-security/\tbookworm-security\tmain\tDebian\tDebian-Security"


def archive(*lines: str) -> apt.Archive:
    return apt.parse_archive("\n".join(lines))


def test_the_debian_archive_is_found_among_others() -> None:
    found = archive(
        "https://apt.example/\tbookworm\tmain\tSomebody\tSomebody",
        "https://vendor.example/debian/\tstable\tmain\tVendor\tDebian packages",
        MAIN,
        UPDATES,
        SECURITY,
    )
    assert found == apt.Archive(
        "http://mirror.example/debian/", "http://security.example/debian-security/", updates=True
    )


def test_sources_of_another_release() -> None:
    assert archive(MAIN, UPDATES, SECURITY).sources("trixie") == [
        "deb http://mirror.example/debian/ trixie main",
        "deb http://mirror.example/debian/ trixie-updates main",
        "deb http://security.example/debian-security/ trixie-security main",
    ]


def test_what_this_machine_does_not_use_its_hosts_do_not_either() -> None:
    assert archive(MAIN).sources("trixie") == ["deb http://mirror.example/debian/ trixie main"]


def test_before_the_first_update_the_path_tells() -> None:
    uris = """\
'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_debian_dists_bookworm_InRelease 0
'https://apt.example/repo/dists/bookworm/main/binary-amd64/Packages.xz' apt.example_Packages 0
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror.example_Packages 0
'http://mirror.example/debian/dists/bookworm/main/binary-all/Packages.xz' mirror.example_Packages 0
'http://mirror.example/debian-security/dists/bookworm-security/main/binary-amd64/Packages.xz' x 0
'http://mirror.example/debian/dists/bookworm-updates/main/binary-amd64/Packages.xz' x 0
"""
    assert archive(*apt.parse_uris(uris).splitlines()) == apt.Archive(
        "http://mirror.example/debian/", "http://mirror.example/debian-security/", updates=True
    )


def test_backports_and_other_components_are_left_out() -> None:
    found = archive(
        "http://old.example/debian/\tbookworm-backports\tmain\tDebian\tDebian",
        "http://old.example/debian/\tbookworm\tcontrib\tDebian\tDebian",
        MAIN,
    )
    assert found == apt.Archive("http://mirror.example/debian/", None, updates=False)


def test_no_debian_archive_names_the_cure() -> None:
    with pytest.raises(LabError, match="LAB_MIRROR="):
        archive("https://archive.example/ubuntu/\tnoble\tmain\tUbuntu\tUbuntu")


def test_a_mirror_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_MIRROR", "http://own.example/debian")
    assert apt.archive().sources("trixie") == ["deb http://own.example/debian trixie main"]


def test_inherited_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    dump = """\
APT::Architecture "amd64";
Acquire::http::Proxy "http://proxy.example:3142";
Acquire::http::Proxy::mirror.example "DIRECT";
Acquire::https::Proxy "";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
"""
    monkeypatch.setattr(apt, "output", lambda _: dump)
    assert apt.inherited_settings() == [
        'Acquire::http::Proxy "http://proxy.example:3142";',
        'Acquire::http::Proxy::mirror.example "DIRECT";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_unknown_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = """\
podman:
  Installed: (none)
  Candidate: 4.3.1+ds1-8
  Version table:
runc:
  Installed: (none)
  Candidate: (none)
"""
    monkeypatch.setattr(apt, "output", lambda *_, **__: policy)
    assert apt.unknown(["podman", "runc", "never-heard-of"]) == ["runc", "never-heard-of"]
