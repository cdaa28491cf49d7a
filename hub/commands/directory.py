"""Who signs in with which credential: read from the log once, kept in memory, and dropped when it changes."""

import asyncio
from collections.abc import Awaitable, Callable

import attrs

from hub.access.principal import Principal, make_principal
from hub.access.records import Credential, CredentialKind, PrincipalRecord, TenantRole, make_name
from hub.access.secrets import hash_secret, is_secret_of, parse_token
from hub.errors import CredentialExpired, CredentialRevoked, Unauthenticated
from hub.seams import Seams
from hub.storage.access_store import AccessStore

CACHE_SIZE = 10_000  # credentials in memory; the oldest go first
UNKNOWN_DIGEST = hash_secret("")  # compared if the credential is unknown: the work is the same
TOKEN_KINDS: dict[str, CredentialKind] = {"hk": "key", "hb": "browser"}

CredentialOwner = tuple[Credential, PrincipalRecord]


@attrs.frozen(kw_only=True)
class ForeignUser:
    """A person or program that a trusted proxy or a JWT names.

    *subject* is unique among those of *kind*. *expires* (ms) is the end of the sign-in, or 0.
    """

    kind: CredentialKind
    subject: str
    name: str
    expires: int = 0

    @property
    def credential_id(self) -> str:
        return f"{self.kind}:{hash_secret(self.subject)[:32]}"


@attrs.define(eq=False, kw_only=True)
class Directory:
    """Finds the principal of a credential.

    *version* changes with each drop(): what was read before the change is then not kept. *changes* has the version of
    the last change of each principal, since the start. *read_jwt* verifies a JWT; it
    is None if JWTs are not configured. *uses* are the times of the last uses by credential, until they are saved.
    *used_links* are the one-time links whose use is being saved. *creation_lock* is held while a principal is
    looked for and made.
    """

    store: AccessStore
    seams: Seams
    new_user_role: TenantRole
    read_jwt: Callable[[str], Awaitable[ForeignUser]] | None = None
    uses: dict[str, int] = attrs.Factory(dict)
    used_links: set[str] = attrs.Factory(set)
    version: int = 0
    changes: dict[str, int] = attrs.Factory(dict)
    creation_lock: asyncio.Lock = attrs.Factory(asyncio.Lock)
    _cache: dict[str, CredentialOwner] = attrs.Factory(dict)

    async def authenticate(self, text: str) -> Principal:
        """Return the principal of a key, a cookie's value or a JWT. Raises Unauthenticated, StorageUnavailable."""
        token = parse_token(text)
        if token is None:
            if self.read_jwt is None:
                raise Unauthenticated()
            return await self.find_foreign_user(await self.read_jwt(text))
        owner = await self.find_owner(token.id)
        is_right = is_secret_of(owner[0].digest if owner else UNKNOWN_DIGEST, token)
        if owner is None or not is_right or owner[0].kind != TOKEN_KINDS.get(token.kind):
            raise Unauthenticated()
        return self._admit(owner)

    async def find_foreign_user(self, user: ForeignUser) -> Principal:
        """Return the principal of a user that a proxy or a JWT names. Make it on its first visit.

        Raises Unauthenticated, StorageUnavailable.
        """
        owner = await self.find_owner(user.credential_id)
        if owner is None:
            async with self.creation_lock:  # two first requests of one user make one principal
                owner = await self.find_owner(user.credential_id) or await self._create(user)
        return attrs.evolve(self._admit(owner), expires=user.expires)

    def is_current(self, principal: Principal) -> bool:
        """Return whether neither the principal nor a credential of it has changed since this object was made."""
        return principal.version >= self.changes.get(principal.id, 0)

    async def renew(self, principal: Principal) -> Principal:
        """Return a principal as its credential and its record are now.

        Raises CredentialExpired, CredentialRevoked, StorageUnavailable.
        """
        if 0 < principal.expires <= self.seams.now():
            raise CredentialExpired()
        if self.is_current(principal):
            return principal
        owner = await self.find_owner(principal.credential_id)
        if owner is None or owner[0].revoked:
            raise CredentialRevoked()
        current = make_principal(owner[1], owner[0], self.version)
        return attrs.evolve(current, expires=principal.expires, address=principal.address)

    async def find_owner(self, credential_id: str) -> CredentialOwner | None:
        """Return a credential, also an expired or revoked one, with its principal. Raises StorageUnavailable."""
        while (owner := self._cache.get(credential_id)) is None:
            version = self.version
            credential = await self.store.find_credential(credential_id)
            record = await self.store.find_principal(credential.principal) if credential is not None else None
            if version != self.version:  # a change came between: read again
                continue
            if credential is None or record is None:
                return None
            while len(self._cache) >= CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
            self._cache[credential_id] = credential, record
        return owner

    def drop(self, principal_id: str) -> None:
        """Forget a principal and its credentials. Call this in the step after the commit of a change."""
        self.version += 1
        self.changes[principal_id] = self.version
        for name in [name for name, (_, record) in self._cache.items() if record.id == principal_id]:
            del self._cache[name]

    async def save_uses(self) -> None:
        """Save the times of the last uses. Call this now and then. Raises StorageUnavailable."""
        if self.uses:
            uses, self.uses = self.uses, {}
            await self.store.note_use(uses)

    def _admit(self, owner: CredentialOwner) -> Principal:
        credential, record = owner
        now = self.seams.now()
        if credential.revoked or 0 < credential.expires <= now:
            raise Unauthenticated()
        self.uses[credential.id] = now
        return make_principal(record, credential, self.version)

    async def _create(self, user: ForeignUser) -> CredentialOwner:
        now = self.seams.now()
        record = PrincipalRecord(
            id=self.seams.new_id("p"), name=make_name(user.name), kind="person", role=self.new_user_role, created=now
        )
        credential = Credential(
            id=user.credential_id, principal=record.id, kind=user.kind, label=user.subject, created=now
        )
        await self.store.save(record, credential)
        return credential, record
