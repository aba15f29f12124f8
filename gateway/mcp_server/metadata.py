"""Where clients of `/mcp` get their tokens, as RFC 9728 has it told: only where the operator names who gives them."""

from __future__ import annotations

from pydantic import BaseModel, Field
from starlette.requests import Request

PATH = "/.well-known/oauth-protected-resource/mcp"


class ProtectedResource(BaseModel):
    """`/mcp` as a resource that tokens are asked for."""

    resource: str
    authorization_servers: list[str] = Field(description="Issuers whose tokens it takes.")
    bearer_methods_supported: list[str] = ["header"]
    resource_name: str = "Omniops Kernels"

    @classmethod
    def of(cls, request: Request, issuers: tuple[str, ...]) -> ProtectedResource:
        return cls(resource=str(request.url.replace(path="/mcp", query="")), authorization_servers=list(issuers))
