//! A login in Azure Key Vault.

mod protocol;
