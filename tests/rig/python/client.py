"""Microsoft's own client for the secrets of Key Vault, driven line by line.

The first line of the input names the vault and the account. Each later line is one operation,
and gets one line back: {"ok": ...} or {"error": ...}.
"""

import json
import logging
import sys

from azure.identity import ClientAssertionCredential, ClientSecretCredential
from azure.keyvault.secrets import SecretClient

# Each failure goes into the reply, so the log is not needed.
logging.disable()


def reply(message):
    print(json.dumps(message), flush=True)


def shown(secret):
    properties = getattr(secret, "properties", secret)
    return {
        "name": properties.name,
        "version": properties.version,
        "value": getattr(secret, "value", None),
        "tags": properties.tags,
        "enabled": properties.enabled,
        "created": properties.created_on and properties.created_on.timestamp(),
        "updated": properties.updated_on and properties.updated_on.timestamp(),
        "content_type": properties.content_type,
    }


def wait_for(poller):
    poller.wait()
    return shown(poller.result())


def describe(error):
    """The refusal as the client reports it."""
    details = getattr(error, "error", None)
    inner = getattr(details, "innererror", None) or {}
    return {
        "kind": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": getattr(details, "code", None),
        "inner": inner.get("code") if isinstance(inner, dict) else getattr(inner, "code", None),
        "message": str(error),
    }


def credential(who, authority):
    options = {
        "tenant_id": who["tenant"],
        "client_id": who["client"],
        "authority": who["authority"],
        # The list of known authorities is on a host of Microsoft's.
        "disable_instance_discovery": True,
        "connection_verify": authority,
    }
    if "assertion" in who:
        return ClientAssertionCredential(func=lambda: who["assertion"], **options)
    return ClientSecretCredential(client_secret=who["secret"], **options)


def main():
    start = json.loads(sys.stdin.readline())
    client = SecretClient(
        start["vault"],
        credential(start["who"], start["authority"]),
        connection_verify=start["authority"],
        verify_challenge_resource=start["verify"],
        retry_total=start["retries"],
        retry_backoff_factor=0.05,
    )
    operations = {
        "set": lambda name, value, **more: shown(client.set_secret(name, value, **more)),
        "get": lambda name, version=None: shown(client.get_secret(name, version)),
        "versions": lambda name: [
            shown(it) for it in client.list_properties_of_secret_versions(name)
        ],
        "pages": lambda name, **more: [
            [shown(it) for it in page]
            for page in client.list_properties_of_secret_versions(name, **more).by_page()
        ],
        "names": lambda: [it.name for it in client.list_properties_of_secrets()],
        "update": lambda name, version=None, **more: shown(
            client.update_secret_properties(name, version, **more)
        ),
        "delete": lambda name: wait_for(client.begin_delete_secret(name)),
        # This returns before the deletion is complete.
        "deleting": lambda name: client.begin_delete_secret(name).status(),
        "deleted": lambda name: shown(client.get_deleted_secret(name)),
        "recover": lambda name: wait_for(client.begin_recover_deleted_secret(name)),
        "recovering": lambda name: client.begin_recover_deleted_secret(name).status(),
        "purge": lambda name: client.purge_deleted_secret(name),
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply({"ok": operations[request.pop("op")](**request)})
        # Every failure goes into the reply.
        except Exception as error:
            reply({"error": describe(error)})


main()
