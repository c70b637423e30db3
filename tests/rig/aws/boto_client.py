"""An independent boto3 client: each JSON line of the input requests one call.

["secretsmanager", "put_secret_value", {...}] is answered with {"ok": ...} or {"error": CODE}.
["rig", "/rig/held", TEXT] calls the control endpoint of `as_documented.py`.
"""

import json
import os
import ssl
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
TRUST = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
clients = {}


def ask(service, call, given):
    if service == "rig":
        request = urllib.request.Request(f"{ENDPOINT}{call}", data=given.encode(), method="POST")
        with urllib.request.urlopen(request, context=TRUST) as reply:
            return json.load(reply)
    if service not in clients:
        # No retries, so that the test sees each failure.
        clients[service] = boto3.client(service, config=Config(retries={"max_attempts": 1}))
    return getattr(clients[service], call)(**given)


for line in sys.stdin:
    try:
        answer = {"ok": ask(*json.loads(line))}
    except ClientError as error:
        answer = {"error": error.response["Error"]["Code"], "message": str(error)}
    print(json.dumps(answer, default=str), flush=True)
