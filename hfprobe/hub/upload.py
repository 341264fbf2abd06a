"""Uploads to the Hugging Face hub: checked before a run, made after it in one commit."""

from __future__ import annotations

import contextlib
import logging
import shlex
from pathlib import Path
from typing import Any

from hfprobe.hub.client import (
    LOG_IN,
    PATIENCE,
    HubFailure,
    answer_within,
    causes_of,
    explain,
    progress_bars,
    server_message,
    status_of,
)
from hfprobe.hub.revision import Revision, published_content
from hfprobe.system.errors import InputError, MachineError

logger = logging.getLogger(__name__)


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
        user = answer_within(PATIENCE, lambda: api.whoami())
        repository = requested if "/" in requested else f"{user['name']}/{requested}"
        _check_permission(user, repository)
        with contextlib.suppress(RepositoryNotFoundError):  # it is created before the upload
            answer_within(PATIENCE, lambda: api.auth_check(repository, write=True))
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
    if any(status_of(found) == 401 for found in causes_of(error)):
        return HubFailure(
            f"the hub refuses the token (HTTP 401{server_message(error)})",
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
    files = sorted(file for file in revision.path.rglob("*") if file.is_file())  # also those of an export
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
                [
                    CommitOperationAdd(file.relative_to(revision.path).as_posix(), published_content(file))
                    for file in files
                ],
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
