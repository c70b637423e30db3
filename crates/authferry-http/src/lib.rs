//! The HTTP client of all network stores, the OIDC token of a CI job, and the ping to a monitor.
//!
//! # Guarantees
//!
//! - **One TLS stack**: rustls with ring, passed to the client and never installed for the
//!   process.
//! - **Credentials go only to the configured servers.** The client follows a redirect from one of
//!   them to another, and refuses any other. Without TLS it connects only to this host.
//! - **Root certificates are loaded on demand**: from the configured file or folder, or else the
//!   system's (or `SSL_CERT_FILE` and `SSL_CERT_DIR`), and only if a server uses TLS.
//! - **Proxies** come from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`; the HTTP
//!   library reads them. Requests to this host never use a proxy.
//! - **No automatic retry** by the client, except of a request that the library knows was not sent.
//!
//! # Examples
//!
//! ```
//! use authferry_http::{Net, NetConfigError};
//!
//! let plain = "http://vault.example:8200".parse()?;
//! let error = Net::default().client(&[plain]);
//! assert!(matches!(error, Err(NetConfigError::Plain(_))));
//! # Ok::<_, url::ParseError>(())
//! ```

#[cfg(test)]
mod canned;
mod http_error;
mod job_token;
mod net;
mod ping;
mod retry;

pub use http_error::{HttpError, read_body};
pub use job_token::{JobToken, JobTokenError};
pub use net::{Net, NetConfigError, Roots};
pub use ping::{Ping, PingError};
