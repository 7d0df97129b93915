"""The program of the role node_exporter that reads when certificates end, with certificates of a real CA."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PROGRAM = Path(__file__).parents[2] / "roles/node_exporter/files/certificate_metrics.py"
NOW = datetime(2026, 11, 21, 12, 30, 15, tzinfo=UTC)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER


def load() -> Any:
    spec = importlib.util.spec_from_file_location("certificate_metrics", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


program = load()


def certificate(end: datetime, encoding: serialization.Encoding = PEM, names: int = 1) -> bytes:
    """Return a certificate; with many names its length takes more bytes."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web1.example.org")])
    alternatives = [x509.DNSName(f"host-{number}.example.org") for number in range(names)]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(encoding)
    )


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - all arguments are ours
        [sys.executable, "-I", PROGRAM, *arguments], capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize("encoding", [PEM, DER])
@pytest.mark.parametrize("names", [1, 3, 5000])
@pytest.mark.parametrize(
    "end",
    [
        NOW,
        datetime(1999, 12, 31, tzinfo=UTC),
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_end_of_a_certificate(end: datetime, names: int, encoding: serialization.Encoding) -> None:
    assert program.first_end(certificate(end, encoding, names)) == end.timestamp()


def test_of_a_chain_the_first_to_end_counts() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = [certificate(NOW + timedelta(days=days)) for days in (90, 30, 3650)]
    assert program.first_end(key + b"".join(chain)) == (NOW + timedelta(days=30)).timestamp()


@pytest.mark.parametrize("length", range(0, 200, 7))
def test_what_is_cut_short_is_no_certificate(length: int) -> None:
    with pytest.raises(ValueError, match="is "):
        program.first_end(certificate(NOW, DER)[:length])


def test_key_and_text_are_no_certificates() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    der = key.private_bytes(DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for content in (pem, der, b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ValueError, match="is "):
            program.first_end(content)


def test_metrics_of_files_patterns_and_faults(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cert.pem").write_bytes(certificate(NOW))
    (tmp_path / "text.pem").write_text("hello")
    output = tmp_path / "certificates.prom"
    output.write_text("older")
    done = run(output, tmp_path / "*" / "cert.pem", tmp_path / "text.pem", tmp_path / 'no "such" *.pem')
    assert done.returncode == 0, done.stderr
    values = [line for line in output.read_text().splitlines() if not line.startswith("#")]
    escaped = f'{tmp_path}/no \\"such\\" *.pem'
    assert values == [
        f'node_certificate_not_after_timestamp_seconds{{path="{tmp_path}/a/cert.pem"}} 1795264215',
        f'node_certificate_not_after_timestamp_seconds{{path="{tmp_path}/b/cert.pem"}} 1795264215',
        f'node_certificate_readable{{path="{tmp_path}/a/cert.pem"}} 1',
        f'node_certificate_readable{{path="{tmp_path}/b/cert.pem"}} 1',
        f'node_certificate_readable{{path="{tmp_path}/text.pem"}} 0',
        f'node_certificate_readable{{path="{escaped}"}} 0',
    ]
    assert f"{tmp_path}/text.pem: is " in done.stderr
    assert "No such file" in done.stderr
    assert "hello" not in done.stderr
    assert output.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "certificates.prom", "text.pem"]


def test_promtool_accepts_the_metrics(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(certificate(NOW))
    output = tmp_path / "certificates.prom"
    assert run(output, tmp_path / "cert.pem", tmp_path / "none.pem").returncode == 0
    promtool = Path(__file__).parents[2] / ".cache/tools/bin/promtool"
    done = subprocess.run(  # noqa: S603 - all arguments are ours
        [promtool, "check", "metrics"],
        input=output.read_text(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_without_a_pattern_nothing_is_written(tmp_path: Path) -> None:
    done = run(tmp_path / "certificates.prom")
    assert done.returncode == 1
    assert done.stderr.startswith("usage: ")
    assert list(tmp_path.iterdir()) == []
