"""Servers and certificates that the tests of the channels make themselves."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fleetwatch.dispatcher.channels import Message

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate, which is its own authority."""

    certificate: Path
    key: Path

    @property
    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_certificate(directory: Path, host: str) -> Certificate:
    """Make a certificate for a name or an address."""
    try:
        name: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(directory / f"{host}.crt", directory / f"{host}.key")
    made.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


@dataclass
class HttpServer:
    """Answers each connection as told and keeps what it was sent."""

    host: str
    port: int
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def http_server(
    answer: Callable[[bytes], bytes | Iterator[bytes]],
    address: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[HttpServer]:
    """Run a server of bytes: ``answer`` makes what to send from the whole request."""
    with socket.create_server((address, port)) as listener:
        server = HttpServer(address, listener.getsockname()[1])

        def serve(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                connection.settimeout(5)
                stream = tls.wrap_socket(connection, server_side=True) if tls else connection
                with stream:
                    request = _request(stream)
                    server.requests.append(request)
                    given = answer(request)
                    for piece in [given] if isinstance(given, bytes) else given:
                        stream.sendall(piece)

        def accept() -> None:
            with suppress(OSError):  # the listener was closed
                while True:
                    connection, _ = listener.accept()
                    Thread(target=serve, args=(connection,), daemon=True).start()

        Thread(target=accept, daemon=True).start()
        yield server


def _request(stream: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += stream.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


def message(key: str = "f1/2026-01-02T03:04:05+00:00/firing", **changes: str | None) -> Message:
    """Return a message with a part for every template."""
    traceparent = changes.pop("traceparent", None)
    parts = {
        "mail.subject": "[CRITICAL] Grüße von node1",
        "mail.txt": "Zeile eins\n.\n" + "x" * 2000 + "\n",
        "mail.html": "<p>schön</p>\n",
        "slack.json": '{"text": "Disk full"}',
        "webhook.json": '{"title": "Disk full", "note": "Grüße"}',
        "sms.txt": "Disk full",
    }
    return Message(key, parts | {name: text or "" for name, text in changes.items()}, traceparent)
