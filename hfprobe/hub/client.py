"""The Hugging Face hub over the network: explained errors, public files without a token."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hfprobe.system.errors import FORBIDDEN

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
# How long to wait for the first answer of the hub, and how long if there is a local copy of the files.
PATIENCE, SHORT_PATIENCE = 10, 3  # seconds
# Packages whose errors mean that there is no connection; several, because huggingface_hub has changed its HTTP library.
TRANSPORTS = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "ssl", "socket"}
LOG_IN = "Log in with `hf auth login`, or correct the environment variable HF_TOKEN or unset it."


@dataclass(frozen=True)
class HubFailure:
    """Why a request to the hub failed.

    Attributes:
        reason: a clause without a period, to be used after a colon.
        remedy: a sentence that says what to do.
    """

    reason: str
    remedy: str


def explain(error: BaseException, *, what: str) -> HubFailure | None:
    """Explain an error of a request to the hub; None for an error with another cause.

    Args:
        what: the requested object, such as `dataset 'owner/name'`.
    """
    from huggingface_hub.errors import GatedRepoError, LocalTokenNotFoundError, OfflineModeIsEnabled

    chain = causes_of(error)
    for found in chain:
        if isinstance(found, OSError) and (variable := _find_unwritable(found)):
            return HubFailure(
                f"files of the hub cannot be kept in '{found.filename}': {found.strerror}",
                f"Set {variable} to a folder that you can write to.",
            )
        if isinstance(found, OfflineModeIsEnabled):
            return HubFailure("the environment variable HF_HUB_OFFLINE forbids asking the hub", "Unset HF_HUB_OFFLINE.")
        if isinstance(found, LocalTokenNotFoundError):
            return HubFailure("no token was found", "Log in with `hf auth login`, or set HF_TOKEN.")
        status = status_of(found)
        if status is None or status < 400:
            continue
        said = f"HTTP {status}{server_message(error)}"
        if isinstance(found, GatedRepoError):
            return HubFailure(
                f"only those whom its owner accepts may read {what} ({said})",
                "Ask for access on its page, then log in with `hf auth login`.",
            )
        if refuses_token(found):
            return HubFailure(f"the hub refuses your token ({said}) and has no public {what}", LOG_IN)
        if status in (401, 404):
            return HubFailure(
                f"the hub has no public {what} ({said})",
                "Check the name, or log in with `hf auth login` if it is private.",
            )
        if status == 429:
            return HubFailure(
                f"the hub limits the rate of requests ({said})",
                "Wait some minutes. With a token (`hf auth login`) more requests are allowed.",
            )
        if status >= 500:
            return HubFailure(f"the hub has a fault ({said})", "Try again later; see https://status.huggingface.co.")
        return HubFailure(
            f"the hub refuses the request ({said})",
            "Use a token with the permission for it: https://huggingface.co/settings/tokens.",
        )
    # The HTTP library's error gives the reason; datasets wraps it in a ConnectionError that does not.
    by_transport = [found for found in chain if type(found).__module__.partition(".")[0] in TRANSPORTS]
    for found in [*by_transport, *(found for found in chain if isinstance(found, ConnectionError | TimeoutError))]:
        return HubFailure(
            f"the hub cannot be reached ({type(found).__name__}: {' '.join(str(found).split()) or 'no answer'})",
            "Check the network. Behind a proxy set HTTPS_PROXY, and SSL_CERT_FILE if it has its own certificate.",
        )
    return None


def _find_unwritable(error: OSError) -> str | None:
    """The environment variable that sets the cache which an error of a path is about; None: it is about no cache."""
    import datasets
    from huggingface_hub import constants

    caches = {"HF_HUB_CACHE": constants.HF_HUB_CACHE, "HF_DATASETS_CACHE": datasets.config.HF_DATASETS_CACHE}
    for variable, cache in caches.items():
        if error.errno in FORBIDDEN and isinstance(error.filename, str):
            here, there = Path(error.filename), Path(cache)
            if here.is_relative_to(there) or there.is_relative_to(here):
                return variable
    return None


def causes_of(error: BaseException) -> list[BaseException]:
    """An error and its causes, nearest first: libraries wrap the error of the hub, sometimes with `from None`."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        next_ = waiting.pop(0)
        if next_ is not None and next_ not in found:
            found.append(next_)
            waiting += [next_.__cause__, next_.__context__]
    return found


def status_of(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def server_message(error: BaseException) -> str:
    """The complete message of the server after a colon; empty if there is none."""
    said = next((text for found in causes_of(error) if (text := getattr(found, "server_message", None))), "")
    return f": {' '.join(said.split())}" if said else ""


def refuses_token(error: BaseException) -> bool:
    """Whether the hub refuses the token of the user: with a valid token, it never answers 401."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError

    return status_of(error) == 401 and not isinstance(error, GatedRepoError) and get_token() is not None


def ask(request: Callable[[bool | None], Answer], *, seconds: float = PATIENCE) -> tuple[Answer, bool | None]:
    """Send a request about public files, with the token of the user and, if the hub refuses it, without a token.

    With an expired token, the hub refuses requests for public files too.

    Args:
        request: function that sends the request; its argument is the token.
        seconds: until TimeoutError. The time limits of the HTTP library leave out the time of name resolution.

    Returns:
        The answer, and the token for further requests: None for the token of the user, False for none.
    """
    try:
        return answer_within(seconds, request, None), None
    except Exception as error:
        if not refuses_token(error):
            raise
        with contextlib.suppress(Exception):  # not public either: the first error is more informative
            answer = answer_within(seconds, request, False)
            _warn_of_token(server_message(error))
            return answer, False
        raise


@functools.cache
def _warn_of_token(said: str) -> None:
    logger.warning("The hub refuses your token (HTTP 401%s); public files are fetched without it. %s", said, LOG_IN)


def answer_within(seconds: float, request: Callable[..., Answer], *arguments: Any) -> Answer:
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["answer"] = request(*arguments)
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)  # a blocked thread does not keep the process alive
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["answer"]


@contextlib.contextmanager
def progress_bars() -> Iterator[None]:
    """Show the progress bars of the libraries during a download or an upload, if stderr is a terminal."""
    import datasets
    from huggingface_hub import constants, utils

    if not sys.stderr.isatty() or constants.HF_HUB_DISABLE_PROGRESS_BARS:
        yield
        return
    datasets.enable_progress_bars()
    utils.enable_progress_bars()
    try:
        yield
    finally:
        datasets.disable_progress_bars()
        utils.disable_progress_bars()
