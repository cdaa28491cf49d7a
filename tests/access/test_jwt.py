"""JSON Web Tokens: the hub accepts the good ones of each algorithm, and refuses all forged ones."""

import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey
from support.tokens import (
    AUDIENCE,
    EC,
    ED,
    FORGERIES,
    ISSUER,
    KEY_SET,
    KEYS,
    NOW,
    P384,
    RSA,
    SECONDS,
    SECRET,
    encode_key_set,
    jwk,
    make_token,
)

from hub.access.jwt import (
    MAX_KEYS,
    TokenHeader,
    TokenKey,
    TokenRefused,
    TokenRules,
    VerifiedToken,
    make_secret_key,
    parse_keys,
    read_header,
    select_keys,
    verify_token,
)
from hub.messages.commands import MAX_TOKEN_LENGTH

RULES = TokenRules(ISSUER, AUDIENCE)
# A verifier with a secret and public keys at the same time is the easiest one to confuse.
ALL_KEYS = (make_secret_key(SECRET), *parse_keys(KEY_SET))
PEM = RSA.as_pem(private=False)


def verify(token: str, keys: tuple[TokenKey, ...] = ALL_KEYS, now: int = NOW) -> VerifiedToken:
    return verify_token(token, keys, RULES, now)


def name_of(**claims: Any) -> str:
    return verify(make_token(**claims)).name


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("with_kid", [True, False])
def test_a_good_token_is_accepted(algorithm: str, with_kid: bool) -> None:
    """It may or may not say which key has signed it."""
    token = make_token(algorithm, header={"kid": algorithm} if with_kid else {})
    expected = VerifiedToken(issuer=ISSUER, subject="user-1", name="Ann", expires=NOW + 60_000)
    assert verify(token) == expected


@pytest.mark.parametrize("token", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_token_is_refused(token: str) -> None:
    """The caller gets one type of error, whatever is wrong."""
    with pytest.raises(TokenRefused) as caught:
        verify(token)
    assert len(token) < 8 or token not in str(caught.value)


def test_the_times_are_compared_with_the_time_of_the_caller() -> None:
    """A token is valid from `nbf` on, and no longer at `exp`; both may have fractions of a second."""
    token = make_token(nbf=SECONDS, exp=SECONDS + 1.5)
    assert verify(token, now=NOW).expires == NOW + 1500
    assert verify(token, now=NOW + 1499)
    for now in (NOW - 1, NOW + 1500):
        with pytest.raises(TokenRefused):
            verify(token, now=now)
    assert verify(make_token(exp=1000), now=999_999)


def test_a_token_issued_in_the_future_is_accepted() -> None:
    """Only `nbf` says when a token begins to be valid: the clock of the issuer may be ahead."""
    assert verify(make_token(iat=SECONDS + 3))


def test_one_of_the_audiences_is_the_hub() -> None:
    assert verify(make_token(aud=["other", AUDIENCE]))


def test_a_token_may_have_the_longest_length() -> None:
    token = make_token()
    pad = "x" * ((MAX_TOKEN_LENGTH - len(token)) * 3 // 4 - 12)
    token = make_token(pad=pad)
    assert MAX_TOKEN_LENGTH - 8 < len(token) <= MAX_TOKEN_LENGTH
    assert verify(token)


def test_the_name_is_for_people() -> None:
    """It is one short line: the name, else the user name, else the subject."""
    assert name_of(name=" Ann\n\x1b[31m Lee ") == "Ann \\x1b[31m Lee"
    assert name_of(name="", preferred_username="ann") == "ann"
    assert name_of(name=1, preferred_username=["ann"]) == "user-1"
    assert name_of(name="x" * 1000) == "x" * 100
    assert name_of(name="\ud800") == "?"


def test_a_token_without_kid_is_tried_with_each_key_of_its_algorithm() -> None:
    first, second = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
    keys = parse_keys(encode_key_set(jwk(first, "a"), jwk(second, "b")))
    assert verify(make_token(key=second), keys)
    with pytest.raises(TokenRefused):
        verify(make_token(key=second, header={"kid": "a"}), keys)


def test_a_key_is_selected_by_its_algorithm_and_its_id() -> None:
    """An HMAC secret is never selected for a public-key algorithm, nor a public key for HMAC."""
    for header, kids in (
        (TokenHeader("RS256", "RS256"), ["RS256"]),
        (TokenHeader("RS256", "ES256"), []),
        (TokenHeader("RS256", None), ["RS256"]),
        (TokenHeader("HS256", "RS256"), [None]),
    ):
        keys = select_keys(ALL_KEYS, header)
        assert [key.kid for key in keys] == kids
        assert {key.algorithm for key in keys} <= {header.algorithm}


@pytest.mark.filterwarnings("ignore:Key size")
def test_a_key_set_gives_only_public_keys_for_tokens() -> None:
    """Keys for encryption, of other types, of other curves, short ones and malformed ones are left out."""
    assert [(key.algorithm, key.kid) for key in parse_keys(KEY_SET)] == [
        ("RS256", "RS256"),
        ("ES256", "ES256"),
        ("EdDSA", "EdDSA"),
    ]
    useless: list[Any] = [
        RSA.as_dict(private=True),
        EC.as_dict(private=True),
        jwk(RSAKey.generate_key(1024), "short"),
        jwk(ECKey.generate_key("secp256k1"), "bitcoin"),
        jwk(P384, "P-384"),
        {**jwk(EC, "x"), "x": jwk(ECKey.generate_key("P-256"), "")["x"]},  # not a point of the curve
        {**jwk(RSA, "x"), "kid": 1},
        {**jwk(RSA, "x"), "n": 5},
        {**jwk(RSA, "x"), "alg": "none"},
        {**jwk(RSA, "x"), "alg": []},
        {**jwk(RSA, "x"), "key_ops": 1},
        {"kty": "RSA"},
        {},
        [],
        "text",
        None,
    ]
    assert [key.kid for key in parse_keys(encode_key_set(*useless, jwk(EC, "good")))] == ["good"]
    with pytest.raises(ValueError, match="no public key for RS256, ES256, EdDSA"):
        parse_keys(encode_key_set(*useless))


@pytest.mark.parametrize("key", [RSA, EC, ED], ids=["RS256", "ES256", "EdDSA"])
def test_a_key_in_pem_verifies_tokens_with_any_kid(key: Any) -> None:
    """PEM has no place for an id."""
    algorithm = next(name for name, one in KEYS.items() if one is key)
    keys = parse_keys(b"a comment\r\n" + key.as_pem(private=False))
    assert verify(make_token(algorithm), keys) and verify(make_token(algorithm, header={"kid": "any"}), keys)


def test_a_file_may_have_several_keys_in_pem() -> None:
    """The issuer changes from one to the other."""
    assert [key.algorithm for key in parse_keys(PEM + EC.as_pem(private=False))] == ["RS256", "ES256"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "neither a public key in PEM nor a key set"),
        (b"\xff", "neither a public key in PEM nor a key set"),
        (b"[" * 100_000, "neither a public key in PEM nor a key set"),
        (b"[]", "a key set is a JSON object with the list `keys`"),
        (b'{"keys": {}}', "a key set is a JSON object with the list `keys`"),
        (json.dumps({"keys": [jwk(EC, "x")] * (MAX_KEYS + 1)}).encode(), f"more than {MAX_KEYS} keys"),
        (b'{"keys": []}', "no public key for RS256"),
        (RSA.as_pem(private=True), "no public key for RS256"),
        (P384.as_pem(private=False), "no public key for RS256"),
        (PEM.replace(b"A", b"!"), "no public key for RS256"),
    ],
    ids=range(10),
)
def test_data_without_a_usable_key_is_refused(data: bytes, problem: str) -> None:
    """The error is one line that says what is wrong."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_keys(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("secret", [PEM.decode(), json.dumps(RSA.as_dict(private=False))], ids=["PEM", "JWK"])
def test_a_public_key_is_no_secret(secret: str) -> None:
    with pytest.raises(ValueError, match="it is a public key, which everybody knows: set jwt_keys to it instead"):
        make_secret_key(secret)


def test_a_short_secret_is_refused() -> None:
    """It could be guessed from one token."""
    with pytest.raises(ValueError, match="shorter than 32 bytes"):
        make_secret_key("x" * 31)


def test_a_key_does_not_show_its_secret() -> None:
    """Its text may come into a log."""
    assert SECRET not in repr(make_secret_key(SECRET))


def test_the_header_says_which_key_to_look_up() -> None:
    assert read_header(make_token("ES256", header={"kid": "../x"})) == TokenHeader("ES256", "../x")
    assert read_header(make_token("HS256")) == TokenHeader("HS256", None)


@pytest.mark.parametrize("name", ["alg none", "no alg", "alg is a list", "PS256", "crit of b64", "two dots", "huge"])
def test_no_key_is_looked_up_for_a_token_that_no_key_can_verify(name: str) -> None:
    """Its header alone is enough to refuse it, so it causes no request to the issuer."""
    with pytest.raises(TokenRefused):
        read_header(FORGERIES[name])
