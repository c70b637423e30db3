//! The operation and target of a request.

use axum::http::Method;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The operation.
    pub op: Op,
    /// The target: a secret's name, `CONTAINER/BLOB`, or the account that signs in.
    pub name: String,
    /// The version, if the request names one.
    pub version: Option<String>,
    /// The caller; `None` without a good token.
    pub caller: Option<String>,
}

/// The operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// `GET /secrets/NAME`, with a version or without.
    GetSecret,
    /// `GET /secrets/NAME/versions`.
    ListVersions,
    /// `GET /secrets`.
    ListSecrets,
    /// `PUT /secrets/NAME`.
    SetSecret,
    /// `PATCH /secrets/NAME`, with a version or without.
    UpdateSecret,
    /// `DELETE /secrets/NAME`.
    DeleteSecret,
    /// `GET /deletedsecrets/NAME`.
    GetDeleted,
    /// `POST /deletedsecrets/NAME/recover`.
    Recover,
    /// `DELETE /deletedsecrets/NAME`.
    Purge,
    /// Reads a blob.
    ReadBlob,
    /// Writes a blob, or acquires a lease on it.
    WriteBlob,
    /// Deletes a blob.
    DeleteBlob,
    /// `POST /TENANT/oauth2/v2.0/token`, or the equivalent request for a managed identity.
    SignIn,
    /// Anything else.
    Other,
}

impl Op {
    /// Returns the action that the caller needs, as role definitions name it.
    pub(super) fn action(self) -> Option<&'static str> {
        Some(match self {
            Self::GetSecret => "Microsoft.KeyVault/vaults/secrets/getSecret/action",
            Self::ListVersions | Self::ListSecrets | Self::GetDeleted => {
                "Microsoft.KeyVault/vaults/secrets/readMetadata/action"
            }
            Self::SetSecret => "Microsoft.KeyVault/vaults/secrets/setSecret/action",
            Self::UpdateSecret => "Microsoft.KeyVault/vaults/secrets/update/action",
            Self::DeleteSecret => "Microsoft.KeyVault/vaults/secrets/delete",
            Self::Recover => "Microsoft.KeyVault/vaults/secrets/recover/action",
            Self::Purge => "Microsoft.KeyVault/vaults/secrets/purge/action",
            Self::ReadBlob => {
                "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"
            }
            Self::WriteBlob => {
                "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write"
            }
            Self::DeleteBlob => {
                "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete"
            }
            Self::SignIn | Self::Other => return None,
        })
    }

    pub(super) fn is_of_blobs(self) -> bool {
        matches!(self, Self::ReadBlob | Self::WriteBlob | Self::DeleteBlob)
    }
}

impl Call {
    pub(super) fn parse(method: &Method, path: &str) -> Self {
        // One client sends an empty version where it names none.
        let path = path.trim_matches('/');
        let parts: Vec<_> = path.split('/').collect();
        let verb = method.as_str();
        let (op, name, version) = match (verb, parts.as_slice()) {
            ("GET", ["secrets"]) => (Op::ListSecrets, "", None),
            ("GET", ["secrets", name]) => (Op::GetSecret, *name, None),
            ("GET", ["secrets", name, "versions"]) => (Op::ListVersions, *name, None),
            ("GET", ["secrets", name, version]) => (Op::GetSecret, *name, Some(*version)),
            ("PUT", ["secrets", name]) => (Op::SetSecret, *name, None),
            ("PATCH", ["secrets", name]) => (Op::UpdateSecret, *name, None),
            ("PATCH", ["secrets", name, version]) => (Op::UpdateSecret, *name, Some(*version)),
            ("DELETE", ["secrets", name]) => (Op::DeleteSecret, *name, None),
            ("GET", ["deletedsecrets", name]) => (Op::GetDeleted, *name, None),
            ("POST", ["deletedsecrets", name, "recover"]) => (Op::Recover, *name, None),
            ("DELETE", ["deletedsecrets", name]) => (Op::Purge, *name, None),
            ("POST", [_, "oauth2", "v2.0", "token"]) | ("GET", ["msi", "token"]) => {
                (Op::SignIn, "", None)
            }
            ("GET" | "HEAD", [crate::azurite::ACCOUNT, ..]) => (Op::ReadBlob, path, None),
            ("PUT", [crate::azurite::ACCOUNT, ..]) => (Op::WriteBlob, path, None),
            ("DELETE", [crate::azurite::ACCOUNT, ..]) => (Op::DeleteBlob, path, None),
            _ => (Op::Other, path, None),
        };
        let name = if op.is_of_blobs() {
            name.split_once('/').map_or("", |(_, blob)| blob)
        } else {
            name
        };
        Self {
            op,
            name: name.to_owned(),
            version: version.map(str::to_owned),
            caller: None,
        }
    }

    /// Returns the object to which a right can be restricted.
    pub(super) fn thing(&self) -> &str {
        let (container, _) = self.name.split_once('/').unwrap_or((&self.name, ""));
        container
    }
}
