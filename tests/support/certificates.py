"""Certificates for tests: each is signed by itself, for localhost and the loopback addresses."""

import datetime
import ssl
from ipaddress import ip_address
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAMES = (x509.DNSName("localhost"), *(x509.IPAddress(ip_address(text)) for text in ("127.0.0.1", "::1")))


@attrs.frozen
class CertificateFiles:
    """A certificate and its key, as PEM files."""

    file: Path
    key_file: Path

    def trust(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this certificate alone."""
        return ssl.create_default_context(cafile=str(self.file))

    def copy_to(self, other: "CertificateFiles") -> None:
        """Replace the files of another pair, as programs do that renew certificates."""
        for source, target in ((self.file, other.file), (self.key_file, other.key_file)):
            new = target.with_suffix(".new")
            new.write_bytes(source.read_bytes())
            new.replace(target)


def make_certificate(
    folder: Path, name: str = "hub", password: bytes | None = None, host: str = "localhost"
) -> CertificateFiles:
    """Make a certificate and its key in *folder*. *host* is one more name of the machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName({*NAMES, x509.DNSName(host)}), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    encryption = (
        serialization.BestAvailableEncryption(password) if password is not None else serialization.NoEncryption()
    )
    files = CertificateFiles(folder / f"{name}.pem", folder / f"{name}.key")
    files.file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files.key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return files


def sign_again(files: CertificateFiles, days: float, total_days: float = 90) -> None:
    """Replace a certificate by one that ends in *days*, of *total_days*."""
    old = x509.load_pem_x509_certificate(files.file.read_bytes())
    key = serialization.load_pem_private_key(files.key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    builder = (
        x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), old.serial_number)
        .not_valid_before(end - datetime.timedelta(days=total_days))
        .not_valid_after(end)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    files.file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
