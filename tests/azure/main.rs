//! What a Key Vault store does when things go wrong, request by request: on the stand-in for
//! the vault, with Microsoft's own Azurite for the blobs and Microsoft's own client for what
//! people do.

mod coordinated;
mod scene;
