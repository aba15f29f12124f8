"""Settings of who may come in: keys, JSON Web Tokens of Supabase, and how much a caller may ask for."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, HttpUrl, SecretStr, field_validator, model_validator

from .settings_group import Group


class JwtSettings(Group):
    secret: SecretStr | None = Field(
        None, description="Secret of HS256, 32 characters or more. None: no token is taken that is signed so."
    )
    jwks_url: HttpUrl | None = Field(
        None, description="Where the public keys of RS256 and ES256 are. None: no token is taken that is signed so."
    )
    issuer: str | None = Field(
        None, description="`iss` that a token must have, such as https://PROJECT.supabase.co/auth/v1; needed."
    )
    audience: str = Field("authenticated", min_length=1, description="`aud` that a token must have.")
    tenant_claim: str = Field("app_metadata.tenant", description="Claim that names the tenant.")
    role_claim: str = Field("app_metadata.role", description="Claim that names the role: agent, analyst, ops, admin.")
    role: Literal["agent", "analyst", "ops", "admin"] | None = Field(
        None, description="Role of tokens without that claim. None: they are refused."
    )
    leeway_s: float = Field(30.0, ge=0, le=300, description="How far clocks may be apart.")
    jwks_cache_s: float = Field(600.0, gt=0, description="How long public keys are kept before they are asked for.")
    jwks_stale_s: float = Field(
        3600.0, ge=0, description="How much longer they count while the address does not answer."
    )
    jwks_retry_s: float = Field(10.0, gt=0, description="Least time between two requests for public keys.")
    jwks_timeout_s: float = Field(5.0, gt=0, description="Time of one request for public keys.")

    @field_validator("tenant_claim", "role_claim")
    @classmethod
    def _not_the_users_own(cls, claim: str) -> str:
        if claim.partition(".")[0] in ("user_metadata", "raw_user_meta_data") or not all(claim.split(".")):
            raise ValueError("it names a claim such as app_metadata.tenant, never one in user_metadata: users write it")
        return claim

    @field_validator("secret")
    @classmethod
    def _long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < 32:
            raise ValueError("it has 32 characters or more")
        return secret

    @field_validator("jwks_url")
    @classmethod
    def _encrypted(cls, url: HttpUrl | None) -> HttpUrl | None:
        if url is not None and url.scheme != "https" and url.host not in ("127.0.0.1", "localhost", "[::1]"):
            raise ValueError("it begins with https://")
        return url

    @model_validator(mode="after")
    def _issuer(self) -> Self:
        if (self.secret or self.jwks_url) and not self.issuer:
            raise ValueError("it wants issuer, beside secret or jwks_url")
        return self


class IdentitySettings(Group):
    cache_s: float = Field(
        5.0,
        ge=0,
        description="How long a key counts as it was when it was looked up. Changes are heard of at once; this bounds "
        "it where the database's word does not come through.",
    )
    last_use_s: float = Field(60.0, gt=0, description="Seconds between two notes of when keys were used.")
    overlap_s: float = Field(86_400.0, ge=0, description="How long a key's secret counts beside the one after it.")
    wrong_per_minute: int = Field(
        30, gt=0, description="Wrong tokens of one address in a minute; then none is looked up that is not known."
    )
    jwt: JwtSettings = JwtSettings()


class LimitSettings(Group):
    """What one key or tenant may ask for, at one gateway; the server's own token is not counted."""

    requests_per_minute: int = Field(6000, gt=0, description="Requests of one key or token.")
    tenant_requests_per_minute: int = Field(12_000, gt=0, description="Requests of all keys of one tenant.")
    burst_s: float = Field(
        10.0, gt=0, description="So many seconds' worth may come at once: a tenth of a minute's for 6."
    )
    cells_per_day: int | None = Field(None, ge=0, description="Cells of one tenant in a day (UTC). None: any number.")
    dollars_per_day: float | None = Field(
        None, ge=0, description="US dollars of one tenant in a day (UTC), model and tools. None: any sum."
    )
    count_s: float = Field(
        10.0, gt=0, description="Seconds between two looks for what was used, at all gateways, for the day's limits."
    )
