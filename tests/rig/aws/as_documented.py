"""moto's server, patched to follow AWS's documents where moto 5.2.5 departs from them.

usage: python as_documented.py PORT [CERTIFICATE KEY]

Each correction quotes the sentence that it follows: of the Secrets Manager API reference and
user guide (SM), of the STS API reference (STS), or of the IAM user guide (IAM). One lock also
serializes every request: AWS decides on a secret one request after another.

A test controls the server by POST. NAME names a secret or a role.

/rig/counts    NAME                           how often each action was requested for it, and over
                                              how many connections
/rig/done      NAME                           when each action on it was last completed
/rig/enforce                                  from now on denies what no policy allows
/rig/session   [NAME, seconds]                the lifetime of its next sessions
/rig/fault     [action, NAME, fault, times]   injects a fault into the next requests for it
/rig/heal      NAME                           removes the faults that have not happened yet
/rig/held      NAME                           waits until a request is held ("hold" or "delay")
/rig/let-go    NAME                           drops the held requests, or lets them continue
"""

import base64
import collections
import fnmatch
import json
import re
import socket
import ssl
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from joserfc import jwk, jwt
from moto import settings
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.iam.access_control import IAMPolicy, IAMRequest
from moto.iam.models import iam_backends
from moto.secretsmanager import models as sm
from moto.secretsmanager.exceptions import (
    InvalidParameterException,
    InvalidRequestException,
    SecretNotFoundException,
)
from moto.secretsmanager.responses import SecretsManagerResponse
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.sts.models import STSBackend
from moto.sts.responses import TokenResponse
from werkzeug.test import create_environ, run_wsgi_app

CURRENT, PREVIOUS = "AWSCURRENT", "AWSPREVIOUS"


class Refused(ServiceException):
    def __init__(self, code, message):
        super().__init__(code, message)


# -- Secrets Manager: labels ----------------------------------------------------------------


def move_label(self, secret_id, version_stage, remove_from_version_id, move_to_version_id):
    secret = live(self, secret_id)
    for version in (remove_from_version_id, move_to_version_id):
        if version and version not in secret.versions:
            raise sm.ResourceNotFoundException(
                f"Secrets Manager can't find the specified secret version: {version}."
            )
    holder = next((v for v in secret.versions if version_stage in labels(secret, v)), None)
    # SM, UpdateSecretVersionStage: "If any of the staging labels are currently attached to a
    # different version, then you must specify that version in RemoveFromVersionId"; "If the
    # label is attached and you either do not specify this parameter, or the version ID does not
    # match, then the operation fails." It changes nothing in that case: moto removed the label.
    if holder not in (None, move_to_version_id) and not remove_from_version_id:
        raise InvalidParameterException(
            f"The parameter RemoveFromVersionId can't be empty. Staging label {version_stage} is "
            f"currently attached to version {holder}, so you must explicitly reference that "
            "version in RemoveFromVersionId."
        )
    if remove_from_version_id and holder != remove_from_version_id:
        raise InvalidParameterException(
            f"When you move staging label {version_stage}, RemoveFromVersionId must be the "
            "version that currently has it."
        )
    # SM, concepts: "Secrets always have a version labeled AWSCURRENT".
    if version_stage == CURRENT and not move_to_version_id:
        raise InvalidParameterException(
            "You can only move staging label AWSCURRENT to a different secret version. It can't "
            "be completely removed."
        )
    if move_to_version_id:
        check_room(secret, move_to_version_id, {version_stage})
    if holder:
        labels(secret, holder).remove(version_stage)
    if move_to_version_id:
        labels(secret, move_to_version_id).append(version_stage)
    if version_stage == CURRENT and holder != move_to_version_id:
        # "Whenever you move AWSCURRENT, Secrets Manager automatically moves the label
        # AWSPREVIOUS to the version that AWSCURRENT was removed from." And GetSecretValue: "If
        # you don't specify either a VersionStage or VersionId, Secrets Manager returns the
        # AWSCURRENT version."
        take_off(secret, {PREVIOUS})
        if holder:
            labels(secret, holder).append(PREVIOUS)
        secret.set_default_version_id(move_to_version_id)
    return secret.arn, secret.name


def make_current(self, secret_version, version_id):
    # SM, PutSecretValue: "If this operation moves the staging label AWSCURRENT from another
    # version to this version, then Secrets Manager also automatically moves the staging label
    # AWSPREVIOUS to the version that AWSCURRENT was removed from." The other labels stay.
    old = next((v for v in self.versions if CURRENT in labels(self, v)), None)
    take_off(self, {PREVIOUS, *secret_version["version_stages"]})
    if old:
        labels(self, old).append(PREVIOUS)
    self.versions[version_id] = secret_version
    self.set_default_version_id(version_id)


def labels(secret, version):
    return secret.versions[version]["version_stages"]


def take_off(secret, names):
    for version in secret.versions.values():
        version["version_stages"] = [s for s in version["version_stages"] if s not in names]


def check_room(secret, version, names):
    # SM, quotas: "Staging labels attached across all versions of a secret: 20".
    there = {s for v in secret.versions for s in labels(secret, v)}
    if len(there | set(names)) > 20:
        raise Refused("LimitExceededException", "You have too many staging labels on this secret.")


# -- Secrets Manager: values ----------------------------------------------------------------

moto_put = sm.SecretsManagerBackend.put_secret_value
moto_create = sm.SecretsManagerBackend.create_secret


def put(self, secret_id, secret_string, secret_binary, client_request_token, version_stages):
    if secret_id in self.secrets:
        secret = live(self, secret_id)
        check_value(secret_string, secret_binary)
        check_room(secret, client_request_token, version_stages or [])
    return moto_put(
        self, secret_id, secret_string, secret_binary, client_request_token, version_stages
    )


def create(self, name, secret_string, secret_binary, *others, **named):
    # SM, CreateSecret: "The secret is scheduled for deletion" is an InvalidRequestException.
    if name in self.secrets and self.secrets[name].is_deleted():
        raise InvalidRequestException(
            "You can't create this secret because a secret with this name is already scheduled "
            "for deletion."
        )
    if secret_string or secret_binary:
        check_value(secret_string, secret_binary)
    return moto_create(self, name, secret_string, secret_binary, *others, **named)


def check_value(string, binary):
    # SM, PutSecretValue: "You must include SecretBinary or SecretString, but not both."
    if bool(string) == bool(binary):
        raise InvalidParameterException(
            "You must provide either SecretString or SecretBinary, but not both."
        )
    # SM, quotas: "Secret value size: 65,536 bytes".
    if len((string or "").encode()) > 65536:
        raise InvalidParameterException("The secret value is longer than 65536 bytes.")


def live(backend, secret_id):
    if secret_id not in backend.secrets:
        raise SecretNotFoundException()
    secret = backend.secrets[secret_id]
    if isinstance(secret, sm.ReplicaSecret):
        raise sm.OperationNotPermittedOnReplica
    # SM, PutSecretValue and UpdateSecretVersionStage: "The secret is scheduled for deletion"
    # is an InvalidRequestException.
    if secret.is_deleted():
        raise InvalidRequestException(
            "You can't perform this operation on the secret because it was marked for deletion."
        )
    return secret


sm.SecretsManagerBackend.update_secret_version_stage = move_label
sm.SecretsManagerBackend.put_secret_value = put
sm.SecretsManagerBackend.create_secret = create
sm.FakeSecret.reset_default_version = make_current


# -- IAM: resources and policies ------------------------------------------------------------


def resource(self):
    # IAM, actions for Secrets Manager: every action that is used here is about a secret,
    # "arn:${Partition}:secretsmanager:${Region}:${Account}:secret:${SecretId}", and the id ends
    # in a hyphen and six characters. moto checks "*". A missing secret has no such
    # characters yet, and a denial names it without them.
    asked = self._get_param("SecretId") or self._get_param("Name") or "*"
    secret = self.backend.secrets.get(asked)
    if secret:
        return secret.arn
    return f"arn:aws:secretsmanager:{self.region}:{self.current_account}:secret:{asked}"


def remember_name(self, *given, **named):
    moto_request(self, *given, **named)
    try:
        self._name = json.loads(self._body).get("Name")
    except ValueError:
        self._name = None


SecretsManagerResponse._determine_resource = resource
moto_request, IAMRequest.__init__ = IAMRequest.__init__, remember_name


# IAM, troubleshooting access denied: "User: ... is not authorized to perform: ... on resource:
# ... because no identity-based policy allows the ... action". SM, common errors:
# "AccessDeniedException", "UnrecognizedClientException: The X.509 certificate or AWS access key
# ID provided does not exist in our records", "InvalidSignatureException" as of all services that
# speak JSON. moto answers in XML, from which clients cannot read the code.


def deny(self):
    if self._service != "secretsmanager":
        return moto_deny(self)
    raise JsonRESTError(
        "AccessDeniedException",
        f"User: {self._access_key.arn} is not authorized to perform: {self._action} on resource: "
        f"{self.asked_for} because no identity-based policy allows the {self._action} action",
    )


def check(self, resource):
    # IAM, policy evaluation: "By default, all requests are implicitly denied"; a statement counts
    # if its Action, its Resource and every Condition fit; "* represents any combination of
    # characters and ? represents any single character". moto treats ? differently
    # and ignores conditions.
    self.asked_for = resource
    asked = {"secretsmanager:Name": self._name}
    for policy in self._access_key.collect_policies():
        for statement in IAMPolicy(policy)._policy_json["Statement"]:
            if (
                statement["Effect"] == "Allow"
                and meets("StringLike", statement["Action"], self._action)
                and meets("StringLike", statement["Resource"], resource)
                and all(
                    meets(operator, wanted, asked.get(key))
                    for operator, conditions in statement.get("Condition", {}).items()
                    for key, wanted in conditions.items()
                )
            ):
                return
    self._raise_access_denied()


def not_known(self, reason):
    if self._service != "secretsmanager":
        return moto_not_known(self, reason)
    raise JsonRESTError(
        "UnrecognizedClientException", "The security token included in the request is invalid."
    )


def not_signed(self):
    if self._service != "secretsmanager":
        return moto_not_signed(self)
    raise JsonRESTError(
        "InvalidSignatureException",
        "The request signature we calculated does not match the signature you provided. Check "
        "your AWS Secret Access Key and signing method. Consult the service documentation for "
        "details.\n\nThe Canonical String for this request should have been\n"
        f"'POST\n/\n\nx-amz-security-token:{self._headers.get('X-Amz-Security-Token')}'",
    )


moto_deny, IAMRequest._raise_access_denied = IAMRequest._raise_access_denied, deny
IAMRequest.check_action_permitted = check
moto_not_known, IAMRequest._raise_invalid_access_key = (
    IAMRequest._raise_invalid_access_key,
    not_known,
)
moto_not_signed, IAMRequest._raise_signature_does_not_match = (
    IAMRequest._raise_signature_does_not_match,
    not_signed,
)


# -- STS: trust policies of roles -----------------------------------------------------------


# The lifetime of a role's sessions, where a test sets it.
SESSIONS = {}
moto_assume = STSBackend.assume_role_with_web_identity
moto_authorize = TokenResponse._authenticate_and_authorize_normal_action


def authorize(self, resource="*"):
    # STS, AssumeRoleWithWebIdentity: "Calling AssumeRoleWithWebIdentity does not require the
    # use of Amazon Web Services security credentials."
    if self._get_action() != "AssumeRoleWithWebIdentity":
        moto_authorize(self, resource)


def take_role(self):
    check_identity(
        iam_backends[self.current_account]["aws"],
        self._get_param("RoleArn"),
        self._get_param("WebIdentityToken"),
    )
    return moto_take_role(self)


def assume(self, **named):
    role = named["role_arn"].split("/")[-1]
    named["duration"] = SESSIONS.get(role, named["duration"])
    return moto_assume(self, **named)


def check_identity(iam, role_arn, token):
    denied = Refused("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
    try:
        claims = json.loads(b64(token.split(".")[1]))
    except Exception:
        raise Refused("InvalidIdentityToken", "The ID Token provided is not a valid JWT.")
    # STS: "InvalidIdentityToken: The web identity token that was passed could not be validated
    # by AWS."
    host = re.sub("^https?://", "", claims.get("iss", ""))
    provider = next((p for p in iam.open_id_providers.values() if p.arn.endswith(f"/{host}")), None)
    if not provider:
        raise Refused(
            "InvalidIdentityToken",
            f"No OpenIDConnect provider found in your account for {claims.get('iss')}",
        )
    try:
        verified = jwt.decode(token, keys(claims["iss"]), algorithms=["ES256", "RS256"]).claims
    except Exception:
        raise Refused("InvalidIdentityToken", "Couldn't verify the signature of the token")
    # STS: "ExpiredTokenException: The web identity token that was passed is expired or is not
    # valid."
    if verified["exp"] <= time.time():
        raise Refused("ExpiredTokenException", "Token expired: current date/time must be before it")
    # IAM, OIDC providers: the client id list contains the accepted audiences (`aud`).
    audiences = verified["aud"] if isinstance(verified["aud"], list) else [verified["aud"]]
    if not set(audiences) & set(provider.client_id_list):
        raise Refused("InvalidIdentityToken", "Incorrect token audience")
    # IAM, roles for OIDC federation: "Federated" is the provider's ARN, and the condition keys
    # are the provider's URL and a claim's name. Every condition must be met.
    try:
        policy = json.loads(iam.get_role_by_arn(role_arn).assume_role_policy_document)
    except Exception:
        raise denied
    for statement in policy["Statement"]:
        if (
            statement["Effect"] == "Allow"
            and statement["Action"] == "sts:AssumeRoleWithWebIdentity"
            and statement["Principal"].get("Federated") == provider.arn
            and all(
                meets(operator, wanted, verified.get(key.removeprefix(f"{host}:")))
                for operator, conditions in statement.get("Condition", {}).items()
                for key, wanted in conditions.items()
            )
        ):
            return
    raise denied


def meets(operator, wanted, claim):
    matches = {
        "StringEquals": lambda value, one: value == one,
        "StringLike": lambda value, one: fnmatch.fnmatchcase(value, one.replace("[", "[[]")),
    }[operator]
    wanted = wanted if isinstance(wanted, list) else [wanted]
    return isinstance(claim, str) and any(matches(claim, one) for one in wanted)


def keys(issuer):
    with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration") as reply:
        address = json.load(reply)["jwks_uri"]
    with urllib.request.urlopen(address) as reply:
        return jwk.KeySet.import_key_set(json.load(reply))


def b64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


moto_take_role = TokenResponse.assume_role_with_web_identity
TokenResponse.assume_role_with_web_identity = take_role
TokenResponse._authenticate_and_authorize_normal_action = authorize
STSBackend.assume_role_with_web_identity = assume


# -- The server -----------------------------------------------------------------------------

LOCK = threading.Lock()
# For each secret or role, how often each action was requested, and from which ports.
COUNTS = collections.defaultdict(collections.Counter)
PORTS = collections.defaultdict(set)
# For each of them, when each action was last completed, successfully or not.
DONE = collections.defaultdict(dict)
# The faults of the next requests: [action, secret, fault, how often].
FAULTS = []
HELD, LET_GO = collections.defaultdict(threading.Event), collections.defaultdict(threading.Event)


class Handler(BaseHTTPRequestHandler):
    # As with AWS, one connection may carry several requests. werkzeug's own server closes it.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/rig/"):
            return self.answer(200, json.dumps(control(self.path, body.decode())).encode())
        action, subject = action_and_subject(self.headers, body)
        with LOCK:
            COUNTS[subject][action] += 1
            PORTS[subject].add(self.client_address[1])
            fault = take_fault(action, subject)
        if fault in ("hold", "delay"):
            HELD[subject].set()
            LET_GO[subject].wait()
        if fault in ("hold", "lose request"):
            return self.cut()
        if fault == "fail before":
            return self.fail()
        environ = create_environ(
            self.path,
            f"http://{self.headers['Host']}",
            method="POST",
            headers=self.headers.items(),
            data=body,
        )
        with LOCK:
            reply, status, headers = run_wsgi_app(APP, environ, buffered=True)
            DONE[subject][action] = time.time()
        if fault == "lose reply":
            return self.cut()
        if fault == "fail after":
            return self.fail()
        self.answer(int(status.split()[0]), b"".join(reply), headers.get("Content-Type"))

    def answer(self, status, body, content_type="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self):
        # SM, common errors: "InternalServiceError: An error occurred on the server side", 500.
        self.answer(500, json.dumps({"__type": "InternalServiceError", "message": "?"}).encode())

    def cut(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        pass


def control(path, body):
    match path:
        case "/rig/enforce":
            settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        case "/rig/session":
            role, seconds = json.loads(body)
            SESSIONS[role] = seconds
        case "/rig/fault":
            FAULTS.append(json.loads(body))
        case "/rig/heal":
            left = [fault for fault in FAULTS if fault[1] == body]
            FAULTS[:] = [fault for fault in FAULTS if fault[1] != body]
            return {"left": left}
        case "/rig/held":
            return {"held": HELD[body].wait(timeout=15)}
        case "/rig/let-go":
            LET_GO[body].set()
        case "/rig/done":
            return DONE[body]
        case "/rig/counts":
            return {**COUNTS[body], "connections": len(PORTS[body])}
    return {}


def action_and_subject(headers, body):
    if target := headers.get("X-Amz-Target"):
        asked = json.loads(body)
        return target.split(".")[-1], asked.get("SecretId") or asked.get("Name")
    form = urllib.parse.parse_qs(body.decode())
    role = form.get("RoleArn", [""])[0]
    return form.get("Action", [""])[0], role.split("/")[-1]


def take_fault(action, subject):
    for fault in FAULTS:
        if fault[:2] == [action, subject]:
            fault[3] -= 1
            if fault[3] == 0:
                FAULTS.remove(fault)
            return fault[2]
    return None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    port, *tls = sys.argv[1:]
    APP = DomainDispatcherApplication(create_backend_app)
    server = Server(("127.0.0.1", int(port)), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.serve_forever()
