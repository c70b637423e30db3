//! The Key Vault store under faults, request by request: on our stand-in for the vault, with
//! Microsoft's Azurite for the blobs and Microsoft's client for manual changes.

mod coordinated;
mod scene;
