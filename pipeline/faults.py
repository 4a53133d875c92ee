"""What went wrong with a file or a bucket: whether trying again may help, and what to tell the user when it does not.

Storage libraries raise types of their own, and none of them is imported here: an error is known by its HTTP status, its errno,
or the names in its ancestry. What is not known to pass is permanent, so a wrong key fails at once and not after retries.
"""

import errno
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from schemas.errors import JobError, SourceError, TransientReadError

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE = 0.1  # seconds; doubles with every further attempt

_FOREIGN = (  # roots of error trees that do not descend from OSError: s3fs, adlfs, gcsfs, and HTTP below them
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("azure.core.exceptions", "AzureError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("http.client", "HTTPException"),
)
_PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_PASSING_ERRNO = frozenset(
    getattr(errno, name)
    for name in [
        "EAGAIN",
        "EBUSY",
        "ECONNABORTED",
        "ECONNREFUSED",
        "ECONNRESET",
        "EHOSTUNREACH",
        "EINTR",
        "EIO",
        "ENETDOWN",
        "ENETRESET",
        "ENETUNREACH",
        "EPIPE",
        "EREMOTEIO",
        "ESTALE",
        "ETIMEDOUT",
    ]
    if hasattr(errno, name)
)
_PASSING_NAMES = frozenset(
    [
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectionError",
        "HTTPClientError",
        "IncompleteRead",
        "IncompleteReadError",
        "ProtocolError",
        "RemoteDisconnected",
        "ResponseParserError",
        "ServiceRequestError",
        "ServiceResponseError",
    ]
)
_NO_CREDENTIALS = frozenset(
    [
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "SSOTokenLoadError",
        "NoAuthTokenError",
        "DefaultCredentialsError",
    ]
)
_PACKAGES = {
    "s3": "latentmill[s3]", "s3a": "latentmill[s3]", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko",
}  # fmt: skip


def faults() -> tuple[type[BaseException], ...]:
    """Every type a storage call can fail with, given the libraries that are loaded: for `except faults() as error`."""
    loaded = [getattr(sys.modules.get(module), name, None) for module, name in _FOREIGN]
    return (OSError, *[kind for kind in loaded if kind is not None])


def read_faults() -> tuple[type[BaseException], ...]:
    """`faults()`, and what they become after retries: everything a read can end with that is not the job's fault."""
    return (TransientReadError, *faults())


def persist(url: str, attempt: Callable[[], T], renew: Callable[[], None]) -> T:
    """`attempt()`, and after a fault that may pass again, with growing pauses; `renew` throws away what it went through.

    Raises TransientReadError when every attempt failed, SourceError when there are no credentials, JobError for storage
    options that the driver does not know; other errors as they are.
    """
    for failed in range(ATTEMPTS):
        try:
            return attempt()
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise JobError.one(
                "storage_options", url, f"{error}.", "use the options that its fsspec driver takes"
            ) from error
        except faults() as error:
            if is_permission(error) and not isinstance(error, PermissionError):
                raise explained(url, error) from error
            if not is_transient(error):
                raise
            if failed + 1 == ATTEMPTS:
                raise TransientReadError(f"{url}: failed {ATTEMPTS} times, lastly with: {_text(error)}") from error
            renew()
            time.sleep(FIRST_PAUSE * 2**failed)
    raise AssertionError("unreachable: the last attempt returns or raises")


def is_transient(error: BaseException) -> bool:
    """Whether a fresh attempt may succeed: HTTP 408, 429, 5xx, resets, timeouts, broken bodies."""
    status = _status(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    if isinstance(error, _PERMANENT):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNO:
        return True
    return bool(_PASSING_NAMES & {kind.__name__ for kind in type(error).__mro__})


def explained(url: str, error: BaseException) -> SourceError:
    """The error a user can act on, with the URL and the fix."""
    return SourceError(f"{url}: {_text(error)} Fix: {_fix(url, error)}")


def is_permission(error: BaseException) -> bool:
    """Whether access was refused, or there is nobody to refuse it to (no credentials)."""
    return isinstance(error, PermissionError) or bool(_NO_CREDENTIALS & {k.__name__ for k in type(error).__mro__})


def _fix(url: str, error: BaseException) -> str:
    scheme = url.split("://", 1)[0] if "://" in url else ""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, ImportError):
        return f"pip install '{_PACKAGES.get(scheme, scheme)}'"
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return "use a path, file://, s3://, gs://, az://, hf://, https:// or memory://"
    if names & _NO_CREDENTIALS:
        return "set credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, …) or storage_options; `anon: true` if public"
    if isinstance(error, PermissionError):
        return "check the credentials and that they may list and read here; `storage_options: {anon: true}` if it is public"
    if isinstance(error, FileNotFoundError):
        return (
            "check the bucket's and the folder's spelling, and the endpoint in storage_options if it is not the default"
        )
    if is_transient(error):
        return "check the network and the endpoint, then run again: it goes on where it was"
    return "check the URL and storage_options"


def _text(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, FileNotFoundError) and "not exist" not in text and "No such" not in text:
        text = f"nothing is there ({text})"
    return text if text.endswith(".") else text + "."


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error or of what caused it: s3fs hides it behind an OSError."""
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return None
        response: Any = getattr(seen, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(seen, "status", None) or getattr(seen, "status_code", None)
        if isinstance(status, int) and status >= 400:
            return status
        seen = seen.__cause__
    return None
