"""What the standards' own validators say of a bundle's folder, without a network.

roc-validator reads JSON-LD contexts from their addresses; those that a bundle uses lie in `contexts/`, and are put
into the cache that it looks into first. (ro-crate-1.2.jsonld is the context of the specification as published, under
CC0 as it says itself.) The schemas of the other validators are part of them. All are in locks/archive.txt.
"""

from __future__ import annotations

import tempfile
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from biglocal.model import BiglocalError
from biglocal.study import HERE

CONTEXTS = {"https://w3id.org/ro/crate/1.2/context": HERE / "archive" / "contexts" / "ro-crate-1.2.jsonld"}
PROFILES = ("ro-crate-1.2", "process-run-crate-0.5")


def _absent(name: str) -> BiglocalError:
    return BiglocalError(f"{name} is not installed here. `nox -s bundle` and `nox -s audit` have it.")


def crate(folder: Path, profile: str, level: str = "REQUIRED") -> tuple[str, ...]:
    """What roc-validator finds wrong with an RO-Crate by one of PROFILES: `check: sentence`.

    `level`: REQUIRED, RECOMMENDED or OPTIONAL. Raises `BiglocalError` where it is not installed.
    """
    try:
        from rocrate_validator import services
    except ImportError:
        raise _absent("roc-validator") from None
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
    import requests
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


def bag(folder: Path) -> tuple[str, ...]:
    """What bagit finds wrong with a bag. Raises `BiglocalError` where it is not installed."""
    try:
        import bagit
    except ImportError:
        raise _absent("bagit") from None
    try:
        bagit.Bag(str(folder)).validate()
    except bagit.BagError as e:
        return tuple(str(d) for d in getattr(e, "details", ())) or (str(e),)
    return ()


def package(file: Path) -> tuple[str, ...]:
    """What frictionless finds wrong with a Data Package and the files it describes, every row of them.

    Raises `BiglocalError` where it is not installed.
    """
    try:
        import frictionless
    except ImportError:
        raise _absent("frictionless") from None
    report = frictionless.Package(str(file)).validate()
    return tuple(f"{name}: {message}" for name, message in report.flatten(["name", "message"]))


def citation(file: Path) -> tuple[str, ...]:
    """What check-jsonschema finds wrong with a CITATION.cff. Raises `BiglocalError` where it is not installed."""
    try:
        import check_jsonschema
    except ImportError:
        raise _absent("check-jsonschema") from None
    said, words = StringIO(), ["--builtin-schema", "vendor.citation-file-format", "--default-filetype", "yaml"]
    try:
        with redirect_stdout(said):
            check_jsonschema.main([*words, str(file)], standalone_mode=False)
    except SystemExit as e:
        if e.code:
            return tuple(line.strip() for line in said.getvalue().splitlines()[1:])
    return ()
