"""A client of an omniops gateway: sessions of sandboxed Python kernels, their cells and files, approvals, transcripts.

    from omniops_client import Client

    with Client("http://127.0.0.1:8765", token) as client, client.sessions.create("acme") as session:
        print(session.run("6 * 7").value)

`AsyncClient` is the same with `await`. It needs nothing of the gateway's: httpx, msgspec, tenacity. docs/client.md.
"""

from omniops_client._async.client import AsyncClient as AsyncClient
from omniops_client._async.session import AsyncSession as AsyncSession
from omniops_client._sync.client import Client as Client
from omniops_client._sync.session import Session as Session
from omniops_client.errors import ApiError as ApiError
from omniops_client.errors import BadAnswer as BadAnswer
from omniops_client.errors import BadRequest as BadRequest
from omniops_client.errors import CellCancelled as CellCancelled
from omniops_client.errors import CellFailed as CellFailed
from omniops_client.errors import Conflict as Conflict
from omniops_client.errors import ConnectionFailed as ConnectionFailed
from omniops_client.errors import Forbidden as Forbidden
from omniops_client.errors import NotFound as NotFound
from omniops_client.errors import OmniopsError as OmniopsError
from omniops_client.errors import QuotaExceeded as QuotaExceeded
from omniops_client.errors import RateLimited as RateLimited
from omniops_client.errors import ServerError as ServerError
from omniops_client.errors import SessionEnded as SessionEnded
from omniops_client.errors import SessionLost as SessionLost
from omniops_client.errors import TimedOut as TimedOut
from omniops_client.errors import TooLarge as TooLarge
from omniops_client.errors import Unauthorized as Unauthorized
from omniops_client.types import Approval as Approval
from omniops_client.types import CellResult as CellResult
from omniops_client.types import ChatEvent as ChatEvent
from omniops_client.types import File as File
from omniops_client.types import Finished as Finished
from omniops_client.types import Output as Output
from omniops_client.types import SessionInfo as SessionInfo
from omniops_client.types import Tool as Tool
