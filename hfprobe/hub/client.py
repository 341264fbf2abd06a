"""The Hugging Face hub over the network: explained errors, public files without a token, uploads."""

from __future__ import annotations

import contextlib
import functools
import logging
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hfprobe.hub.revision import Revision, published_content
from hfprobe.system.errors import FORBIDDEN, InputError, MachineError

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

    chain = _chain(error)
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
        status = _status(found)
        if status is None or status < 400:
            continue
        said = f"HTTP {status}{_server_message(error)}"
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


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes, nearest first: libraries wrap the error of the hub, sometimes with `from None`."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        next_ = waiting.pop(0)
        if next_ is not None and next_ not in found:
            found.append(next_)
            waiting += [next_.__cause__, next_.__context__]
    return found


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _server_message(error: BaseException) -> str:
    """The complete message of the server after a colon; empty if there is none."""
    said = next((text for found in _chain(error) if (text := getattr(found, "server_message", None))), "")
    return f": {' '.join(said.split())}" if said else ""


def refuses_token(error: BaseException) -> bool:
    """Whether the hub refuses the token of the user: with a valid token, it never answers 401."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError

    return _status(error) == 401 and not isinstance(error, GatedRepoError) and get_token() is not None


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
        return _within(seconds, request, None), None
    except Exception as error:
        if not refuses_token(error):
            raise
        with contextlib.suppress(Exception):  # not public either: the first error is more informative
            answer = _within(seconds, request, False)
            _warn_of_token(_server_message(error))
            return answer, False
        raise


@functools.cache
def _warn_of_token(said: str) -> None:
    logger.warning("The hub refuses your token (HTTP 401%s); public files are fetched without it. %s", said, LOG_IN)


def _within(seconds: float, request: Callable[..., Answer], *arguments: Any) -> Answer:
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


# --- uploads ---------------------------------------------------------------------------------------------------------


def check_upload(arguments: Any) -> str:
    """Check before a run that `--push_to_hub` can upload, and return the hub id that it uploads to.

    Args:
        arguments: RunArguments.

    Raises:
        InputError: an invalid model id; no token, or one without permission to write; no answer of the hub.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    api = HfApi(token=arguments.hub_token)
    requested = arguments.hub_model_id or Path(arguments.output_dir).absolute().name
    try:
        validate_repo_id(requested)
    except HFValidationError as error:
        raise InputError(f"--push_to_hub to '{requested}': {error} Pass --hub_model_id owner/name.") from error
    try:
        user = _within(PATIENCE, lambda: api.whoami())
        repository = requested if "/" in requested else f"{user['name']}/{requested}"
        _check_permission(user, repository)
        with contextlib.suppress(RepositoryNotFoundError):  # it is created before the upload
            _within(PATIENCE, lambda: api.auth_check(repository, write=True))
    except InputError:
        raise
    except Exception as error:
        failure = _explain_upload(error, arguments, what=f"model '{requested}'")
        raise InputError(
            f"--push_to_hub cannot be done: {failure.reason}. {failure.remedy} Or leave --push_to_hub out: the model "
            "is pushed to the local hub folder in any case."
        ) from error
    return repository


def _check_permission(user: dict[str, Any], repository: str) -> None:
    """Raise InputError if the answer of whoami says that the token has no permission to write to a repository."""
    namespace = repository.partition("/")[0]
    roles = {user["name"]: "admin"} | {org["name"]: org.get("roleInOrg") for org in user.get("orgs", [])}
    if namespace not in roles:
        raise InputError(
            f"--hub_model_id is {repository}, but the token is of {user['name']}, who cannot write for '{namespace}'. "
            f"Allowed: {', '.join(name for name, role in roles.items() if role != 'read')}."
        )
    if roles[namespace] == "read":
        raise InputError(
            f"--hub_model_id is {repository}, and {user['name']} may only read in '{namespace}'. Ask its owner for the "
            f"role 'write', or use {user['name']}/{repository.partition('/')[2]}."
        )
    token = user.get("auth", {}).get("accessToken", {})
    scopes = token.get("fineGrained", {}).get("scoped", [])
    writes = [scope["entity"].get("name") for scope in scopes if "repo.write" in scope.get("permissions", [])]
    if token.get("role") == "read" or ("fineGrained" in token and not {namespace, repository}.intersection(writes)):
        raise InputError(
            f"The token '{token.get('displayName', '')}' may not write to {repository}. Make one with the permission "
            "to write at https://huggingface.co/settings/tokens, and log in with it: hf auth login."
        )


def _explain_upload(error: Exception, arguments: Any, *, what: str) -> HubFailure:
    if any(_status(found) == 401 for found in _chain(error)):
        return HubFailure(
            f"the hub refuses the token (HTTP 401{_server_message(error)})",
            "Correct --hub_token." if arguments.hub_token else LOG_IN,
        )
    return explain(error, what=what) or HubFailure(f"{type(error).__name__}: {' '.join(str(error).split())}", "")


def upload_revision(revision: Revision, *, repository: str, arguments: Any) -> str:
    """Upload exactly the files of a local revision in one commit; returns their address on the hub.

    Of a local dataset, only the name of its folder is uploaded.

    Args:
        repository: hub id returned by `check_upload`.
        arguments: RunArguments, of which `hub_private_repo`, `hub_revision` and `hub_token` are used.

    Raises:
        MachineError: the upload failed; the local revision is intact.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=arguments.hub_token)
    files = sorted(revision.path.iterdir())
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    logger.info("Uploading %d files (%.1f MB) to %s/%s ...", len(files), megabytes, api.endpoint, repository)
    try:
        with progress_bars():
            api.create_repo(repository, private=arguments.hub_private_repo, exist_ok=True)
            if arguments.hub_revision:
                api.create_branch(repository, branch=arguments.hub_revision, exist_ok=True)
            # Not `upload_folder`, which may split a folder into several commits: the upload must be atomic.
            api.create_commit(
                repository,
                [CommitOperationAdd(file.name, published_content(file)) for file in files],
                commit_message=f"{revision.name}@{revision.commit[:12]}",
                revision=arguments.hub_revision,
            )
    except Exception as error:  # the transport's own classes change with huggingface_hub's HTTP library
        failure = _explain_upload(error, arguments, what=f"model '{repository}'")
        again = ["hf", "upload", repository, str(revision.path), "."]
        again += ["--private"] * bool(arguments.hub_private_repo)
        again += ["--revision", arguments.hub_revision] if arguments.hub_revision else []
        raise MachineError(
            f"The upload to {repository} failed: {failure.reason}. {failure.remedy} The model is intact in the local "
            f"hub folder as {revision.name}@{revision.commit[:12]}. To upload it: {shlex.join(again)}"
        ) from error
    page = f"{api.endpoint}/{repository}"
    return f"{page}/tree/{arguments.hub_revision}" if arguments.hub_revision else page
