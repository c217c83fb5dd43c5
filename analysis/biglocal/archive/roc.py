"""What roc-validator says of an RO-Crate, without a network (it is in locks/archive.txt).

It reads a JSON-LD context from its address. The one that a bundle uses lies in `contexts/` (as the specification 1.2
publishes it, under CC0, as it says itself), and is put into the cache where the validator looks first.
"""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biglocal.model import BiglocalError
from biglocal.study import HERE

if TYPE_CHECKING:
    import requests

CONTEXTS = {"https://w3id.org/ro/crate/1.2/context": HERE / "archive" / "contexts" / "ro-crate-1.2.jsonld"}


def validate(folder: Path, profile: str, level: str = "REQUIRED") -> tuple[str, ...]:
    """What roc-validator finds wrong with an RO-Crate: `check: sentence`.

    `profile`: ro-crate-1.2 or process-run-crate-0.5. `level`: REQUIRED, RECOMMENDED or OPTIONAL.
    Raises `BiglocalError` where it is not installed.
    """
    try:
        from rocrate_validator import services
    except ImportError:
        raise BiglocalError("roc-validator is not installed here. `nox -s audit` has it.") from None
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch, "http")
        _fill(cache)
        found = services.validate(
            {
                "rocrate_uri": str(folder),
                "profile_identifier": profile,
                "requirement_severity": level,
                "offline": True,
                "cache_path": cache,
            }
        )
        return tuple(sorted(f"{i.check.identifier}: {i.message}" for i in found.get_issues()))


def _fill(cache: Path) -> None:
    """Put the contexts into a cache as if they had been fetched."""
    from requests.adapters import HTTPAdapter
    from requests_cache import CachedSession
    from urllib3 import HTTPResponse

    class Here(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
            address = str(request.url)
            body, head = BytesIO(CONTEXTS[address].read_bytes()), {"Content-Type": "application/ld+json"}
            raw = HTTPResponse(body, head, status=200, preload_content=False, request_url=address)
            return self.build_response(request, raw)

    with CachedSession(str(cache), backend="sqlite", expire_after=-1) as session:
        session.mount("https://", Here())
        for address in CONTEXTS:
            session.get(address)
