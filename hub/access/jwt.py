"""Verify JSON Web Tokens (RFC 7519) with keys that the caller passes. Needs the packages of the extra `jwt`.

PyJWT is not imported at the top: most hubs verify no token, and the import takes 25 ms.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import orjson

from hub.access.records import MAX_SUBJECT_LENGTH, is_subject, make_name
from hub.messages.commands import MAX_TOKEN_LENGTH

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from jwt.types import Options

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = ("HS256", "RS256", "ES256", "EdDSA")
MAX_SECONDS = 2**53 // 1000  # up to it, JavaScript holds a time in ms exactly
MAX_KEYS = 100  # of a key set: a token without `kid` is tried with each
MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
PEM_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----.*?-----END [A-Z0-9 ]+-----", re.DOTALL)
# The hub checks the times itself, with the clock of its Seams. `iat` says nothing about validity.
CHECKS: "Options" = {
    "require": ["iss", "aud", "exp", "sub"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "enforce_minimum_key_length": True,
}


class TokenRefused(Exception):
    """A token is not valid. The message is the reason, for the log only: a client must not learn it."""


@attrs.frozen
class TokenKey:
    """A key that verifies the tokens of one algorithm: an HMAC secret, or a public key.

    *kid* is its id in a key set, or None if it has no id.
    """

    algorithm: Algorithm
    material: "bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey" = attrs.field(repr=False)
    kid: str | None = None


@attrs.frozen
class TokenHeader:
    """What an unverified token says about its key."""

    algorithm: Algorithm
    kid: str | None


@attrs.frozen
class TokenRules:
    """The claims `iss` and `aud` that a token must have."""

    issuer: str
    audience: str


@attrs.frozen(kw_only=True)
class VerifiedToken:
    """The claims of a valid token. *expires* is in ms; *name* is for people, and need not be unique."""

    issuer: str
    subject: str
    name: str
    expires: int


def read_header(token: str) -> TokenHeader:
    """Return the header of a token that is not verified yet. Raises TokenRefused."""
    import jwt

    if len(token) > MAX_TOKEN_LENGTH:
        raise TokenRefused(f"it is longer than {MAX_TOKEN_LENGTH} characters")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenRefused(str(error)) from None
    if "crit" in header:  # RFC 7515, section 4.1.11: refuse extensions that are not understood
        raise TokenRefused("its header has `crit`")
    if header.get("alg") not in ALGORITHMS:
        raise TokenRefused(f"its algorithm is none of {', '.join(ALGORITHMS)}")
    return TokenHeader(header["alg"], header.get("kid"))


def select_keys(keys: Sequence[TokenKey], header: TokenHeader) -> tuple[TokenKey, ...]:
    """Return the keys that may have signed a token: those of its algorithm that have its `kid`.

    A token without `kid` may have been signed by any key of its algorithm. A key without an id, such as one from a PEM
    file, may have signed a token with any `kid`.
    """
    return tuple(
        key
        for key in keys
        if key.algorithm == header.algorithm and (key.kid == header.kid or None in (key.kid, header.kid))
    )


def verify_token(token: str, keys: Sequence[TokenKey], rules: TokenRules, now: int) -> VerifiedToken:
    """Return the claims of a token that one of *keys* has signed, and that is valid at the time *now* (ms).

    Raises TokenRefused for every other token.
    """
    header = read_header(token)
    claims = _verify_signature(token, select_keys(keys, header), rules)
    expires = _to_milliseconds(claims, "exp")
    if now >= expires:
        raise TokenRefused("it has expired")
    if "nbf" in claims and now < _to_milliseconds(claims, "nbf"):
        raise TokenRefused("it is not valid yet (nbf)")
    subject = claims["sub"]  # PyJWT has checked that it is a text
    if not is_subject(subject):
        raise TokenRefused(f"its `sub` is not a printable text of 1 to {MAX_SUBJECT_LENGTH} characters")
    return VerifiedToken(issuer=rules.issuer, subject=subject, name=_choose_name(claims), expires=expires)


def _verify_signature(token: str, keys: Sequence[TokenKey], rules: TokenRules) -> dict[str, Any]:
    """Return the claims of a token that one of *keys* has signed; the times are not checked."""
    import jwt

    for key in keys:
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],  # of the key, not of the token: an RSA key is never used as an HMAC secret
                options=CHECKS,
                audience=rules.audience,
                issuer=rules.issuer,
            )
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise TokenRefused(str(error)) from None
    raise TokenRefused("none of the keys has signed it" if keys else "there is no key with its `kid` and algorithm")


def _to_milliseconds(claims: Mapping[str, Any], name: str) -> int:
    """Return a time of the claims in ms. JSON in Python may have Infinity, NaN and integers of any size."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_SECONDS:
        raise TokenRefused(f"its `{name}` is not a time in seconds")
    return int(value * 1000)


def _choose_name(claims: Mapping[str, Any]) -> str:
    """Return the name of the principal for people."""
    values = [claims.get(claim) for claim in ("name", "preferred_username", "sub")]
    names = [make_name(value) for value in values if isinstance(value, str)]
    return next(name for name in names if name)


def make_secret_key(secret: str) -> TokenKey:
    """Return the key of HS256. Raises ValueError if *secret* is too short, or is a public key."""
    from jwt.algorithms import HMACAlgorithm
    from jwt.exceptions import InvalidKeyError

    algorithm = HMACAlgorithm(HMACAlgorithm.SHA256)
    try:
        material = algorithm.prepare_key(secret)
    except InvalidKeyError:
        raise ValueError("it is a public key, which everybody knows: set jwt_keys to it instead") from None
    if algorithm.check_key_length(material):
        raise ValueError("it is shorter than 32 bytes: use 32 random bytes or more")
    return TokenKey("HS256", material)


def parse_keys(data: bytes) -> tuple[TokenKey, ...]:
    """Return the public keys in a text of PEM, or in a key set (JWKS, RFC 7517). Raises ValueError with one line.

    Leaves out all other keys: private keys and secrets, those for encryption, and those of other types and sizes.
    """
    blocks = PEM_BLOCK.findall(data)
    parsed_keys = [_load_pem(block) for block in blocks] if blocks else [_load_jwk(jwk) for jwk in _list_jwks(data)]
    keys = tuple(key for key in parsed_keys if key is not None)
    if not keys:
        raise ValueError(f"no public key for {', '.join(ALGORITHMS[1:])} (RSA of {MIN_RSA_BITS} bits, P-256, Ed25519)")
    return keys


def _list_jwks(data: bytes) -> list[Any]:
    try:
        key_set = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ValueError("neither a public key in PEM nor a key set in JSON") from None
    jwks = key_set.get("keys") if isinstance(key_set, dict) else None
    if not isinstance(jwks, list):
        raise ValueError("a key set is a JSON object with the list `keys`")
    if len(jwks) > MAX_KEYS:
        raise ValueError(f"more than {MAX_KEYS} keys")
    return jwks


def _load_pem(block: bytes) -> TokenKey | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return _make_public_key(load_pem_public_key(block))
    except (ValueError, UnsupportedAlgorithm):
        return None


def _load_jwk(jwk: Any) -> TokenKey | None:
    from jwt import PyJWK

    try:
        key = _make_public_key(PyJWK(jwk).key, jwk.get("kid"))
        return key if key is not None and _is_for_tokens(jwk, key) else None
    except Exception:  # PyJWT raises errors of many types; the other keys of the set may be good
        return None


def _is_for_tokens(jwk: Mapping[str, Any], key: TokenKey) -> bool:
    """Return whether a key set allows this use of a key. A key that names no use has every use."""
    return (
        jwk.get("alg", key.algorithm) == key.algorithm
        and jwk.get("use", "sig") == "sig"
        and "verify" in jwk.get("key_ops", ["verify"])
        and isinstance(key.kid, str | None)
    )


def _make_public_key(material: object, kid: str | None = None) -> TokenKey | None:
    """Return the key with the one algorithm that its type is used for, or None if it is not used."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(material, RSAPublicKey) and material.key_size >= MIN_RSA_BITS:
        return TokenKey("RS256", material, kid)
    if isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1):
        return TokenKey("ES256", material, kid)
    if isinstance(material, Ed25519PublicKey):
        return TokenKey("EdDSA", material, kid)
    return None
