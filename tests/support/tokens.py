"""Keys, tokens and forged tokens, made by joserfc: another library than the one that the hub verifies with."""

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

ISSUER = "https://issuer.example"
AUDIENCE = "hubbub"
NOW = 1_900_000_000_000  # ms
SECONDS = NOW // 1000
SECRET = "0123456789abcdef0123456789abcdef"
GONE = object()  # a claim with this value is left out

RSA, EC, ED = RSAKey.generate_key(2048), ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")
P384, ED448 = ECKey.generate_key("P-384"), OKPKey.generate_key("Ed448")
ENCRYPTION, RS512, STRANGER = RSAKey.generate_key(2048), RSAKey.generate_key(2048), RSAKey.generate_key(2048)
KEYS: dict[str, Key] = {"HS256": OctKey.import_key(SECRET), "RS256": RSA, "ES256": EC, "EdDSA": ED}


def import_secret(secret: bytes) -> OctKey:
    """Return an HMAC key. OctKey.import_key() refuses public keys, which are the secrets of some forged tokens."""
    return OctKey(secret, secret)


def jwk(key: Key, kid: str, **fields: Any) -> dict[str, Any]:
    """Return the public part of a key for a key set."""
    return {**key.as_dict(private=False), "kid": kid, **fields}


def encode_key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


# The issuer's key set; only the first three keys may sign tokens for the hub.
KEY_SET = encode_key_set(
    jwk(RSA, "RS256", use="sig", alg="RS256"),
    jwk(EC, "ES256"),
    jwk(ED, "EdDSA", key_ops=["verify"]),
    jwk(P384, "P-384"),
    jwk(ED448, "Ed448"),
    jwk(ENCRYPTION, "encryption", use="enc"),
    jwk(ENCRYPTION, "wrapping", key_ops=["wrapKey"]),
    jwk(RS512, "RS512", alg="RS512"),
    {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"},
)


def make_token(
    algorithm: str = "RS256",
    key: Key | None = None,
    *,
    header: dict[str, Any] | None = None,
    signer: str | None = None,
    payload: Any = None,
    **claims: Any,
) -> str:
    """Return a token that is valid but for the given *header* fields and *claims*.

    *key* signs it with *signer*, an algorithm that is by default the one in the header. *payload* replaces all claims.
    """
    fields = {"alg": algorithm, "typ": "JWT", **(header or {})}
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "name": "Ann", "exp": SECONDS + 60, **claims}
    body = {name: value for name, value in good.items() if value is not GONE} if payload is None else payload
    parts = [urlsafe_b64encode(json.dumps(part).encode()) for part in (fields, body)]
    signed = b".".join(parts)
    model = jws.JWSRegistry.algorithms[signer or algorithm]
    return b".".join([*parts, urlsafe_b64encode(model.sign(signed, key or KEYS[algorithm]))]).decode()


def replace_part(token: str, index: int, part: str) -> str:
    parts = token.split(".")
    parts[index] = part
    return ".".join(parts)


def change_claims(**claims: Any) -> str:
    """Return a token whose claims were changed after it was signed."""
    return replace_part(make_token(), 1, make_token(**claims).split(".")[1])


def der_signature() -> str:
    """Return an ES256 token whose signature is in DER, as TLS has it: RFC 7518 asks for the two numbers alone."""
    token = make_token("ES256")
    raw = urlsafe_b64decode(token.split(".")[2].encode())
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    return replace_part(token, 2, urlsafe_b64encode(der).decode())


def _public_keys_as_secrets() -> dict[str, str]:
    """Return tokens that are signed with HMAC; the secret is a public key of the issuer, which everybody knows."""
    tokens = {}
    for name, key in (("RS256", RSA), ("ES256", EC), ("EdDSA", ED)):
        pem = key.as_pem(private=False)
        forms = {
            "PEM": pem,
            "PEM without its last newline": pem.rstrip(),
            "DER": key.as_der(private=False),
            "JWK": json.dumps(key.as_dict(private=False)).encode(),
        }
        for form, secret in forms.items():
            tokens[f"the {form} of the {name} key as secret"] = make_token("HS256", import_secret(secret))
            header = {"kid": name}
            tokens[f"the {form} of the {name} key as secret, with its kid"] = make_token(
                "HS256", import_secret(secret), header=header
            )
    return tokens


def _kid_attacks() -> dict[str, str]:
    """Return tokens for verifiers that use `kid` as a path, in SQL or as an address."""
    kids = ("../../dev/null", "/dev/null", "x' UNION SELECT 'secret", "https://evil.example/keys", "RS256\x00", "")
    return {
        f"kid {kid!r}, {algorithm}": make_token(algorithm, key, header={"kid": kid})
        for kid in kids
        for algorithm, key in (("HS256", import_secret(b"secret")), ("RS256", STRANGER))
    }


def _strange_claims() -> dict[str, str]:
    claims: dict[str, list[Any]] = {
        "aud": [GONE, None, "other", "HUBBUB", "", [], ["other"], ["hubbub", 1], {"hubbub": 1}, 1],
        "iss": [GONE, None, ISSUER + "/", ISSUER.upper(), "", [ISSUER], 1],
        "exp": [GONE, None, SECONDS - 1, SECONDS, 0, -1, str(SECONDS + 60), True, float("inf"), float("nan")],
        "nbf": [None, SECONDS + 1, SECONDS + 0.001, str(SECONDS - 60), True, float("inf"), float("nan"), []],
        "sub": [GONE, None, "", "  ", "x" * 256, 1, ["user-1"], "user\n1", "user\u202e1", "\ud800"],
    }
    claims["exp"] += [1e300, 10**400, 2**53, [SECONDS + 60]]
    return {
        f"{name} is {'missing' if value is GONE else ascii(value)[:40]}": make_token(**{name: value})
        for name, values in claims.items()
        for value in values
    }


def _strange_headers() -> dict[str, str]:
    evil = {"jku": "https://evil.example/keys", "x5u": "https://evil.example/cert"}
    own_key = {"jwk": STRANGER.as_dict(private=False)}
    deep = urlsafe_b64encode(b"[" * 4000).decode()
    return {
        "alg none": replace_part(make_token(header={"alg": "none"}), 2, ""),
        "alg None": replace_part(make_token(header={"alg": "None"}), 2, ""),
        "alg none with a signature": make_token(header={"alg": "none"}),
        "no alg": make_token(header={"alg": None}),
        "alg is a list": make_token(header={"alg": ["RS256"]}),
        "RS384": make_token("RS384", RSA),
        "PS256": make_token("PS256", RSA),
        "HS512": make_token("HS512", import_secret(SECRET.encode())),
        "crit of a claim": make_token(header={"crit": ["exp"], "exp": 1}),
        "crit of b64": make_token(header={"crit": ["b64"], "b64": True}),
        "crit is empty": make_token(header={"crit": []}),
        "crit is null": make_token(header={"crit": None}),
        "jku and x5u": make_token(key=STRANGER, header=evil),
        "jku and x5u with a known kid": make_token(key=STRANGER, header={**evil, "kid": "RS256"}),
        "a key of its own": make_token(key=STRANGER, header=own_key),
        "the kid of another type": make_token("ES256", header={"kid": "RS256"}),
        "kid is a number": make_token(header={"kid": 1}),
        "kid is null": make_token(header={"kid": None}),
        "the header is a list": replace_part(make_token(), 0, urlsafe_b64encode(b"[]").decode()),
        "the header is deep": replace_part(make_token(), 0, deep),
    }


def _strange_signatures() -> dict[str, str]:
    token = make_token()
    return {
        "another key": make_token(key=STRANGER),
        "another key with a known kid": make_token(key=STRANGER, header={"kid": "RS256"}),
        "the curve P-384": make_token("ES256", P384, signer="ES384"),
        "the curve P-384 with its kid": make_token("ES256", P384, signer="ES384", header={"kid": "P-384"}),
        "the curve Ed448": make_token("EdDSA", ED448, header={"kid": "Ed448"}),
        "a key for encryption": make_token(key=ENCRYPTION),
        "a key for encryption with its kid": make_token(key=ENCRYPTION, header={"kid": "encryption"}),
        "a key for wrapping keys": make_token(key=ENCRYPTION, header={"kid": "wrapping"}),
        "a key for RS512": make_token(key=RS512, header={"kid": "RS512"}),
        "a secret in the key set": make_token("HS256", import_secret(b"secret"), header={"kid": "oct"}),
        "RS256 says that it is ES256": make_token("ES256", RSA, signer="RS256"),
        "changed claims": change_claims(sub="user-2"),
        "changed header": replace_part(token, 0, make_token(header={"kid": "RS256"}).split(".")[0]),
        "empty signature": replace_part(token, 2, ""),
        "cut signature": token[:-4],
        "empty ES256 signature": replace_part(make_token("ES256"), 2, ""),
        "zeros as ES256 signature": replace_part(make_token("ES256"), 2, "A" * 86),
        "DER as ES256 signature": der_signature(),
        "empty EdDSA signature": replace_part(make_token("EdDSA"), 2, ""),
        "empty HS256 signature": replace_part(make_token("HS256"), 2, ""),
    }


def _strange_forms() -> dict[str, str]:
    token = make_token()
    return {
        "empty": "",
        "two dots": "..",
        "one dot": ".",
        "no token": "hello",
        "four dots": f"{token}..",
        "an encrypted token": "e30.e30.e30.e30.e30",
        "not ASCII": replace_part(token, 1, "é"),
        "half a character": replace_part(token, 1, "\ud800"),
        "a space at the end": token + " ",
        "no JSON": replace_part(token, 0, "AAAA"),
        "claims are a list": make_token(payload=[]),
        "huge": make_token(pad="x" * 8192),
        "huge header": make_token(header={"pad": "x" * 8192}),
    }


# Tokens with one thing wrong, for a verifier that knows the keys of KEY_SET and SECRET at the time NOW.
FORGERIES = {
    **_public_keys_as_secrets(),
    **_kid_attacks(),
    **_strange_claims(),
    **_strange_headers(),
    **_strange_signatures(),
    **_strange_forms(),
}
