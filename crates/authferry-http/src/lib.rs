//! One way to speak HTTP for all stores on the network, and the identity that a CI job
//! has of its own.
//!
//! # What it promises
//!
//! - **One TLS stack**: rustls with ring, handed over and never installed for the process.
//! - **A credential goes to the named servers alone.** A redirect is followed from one of
//!   them to another one, and refused otherwise. Without TLS only this host is spoken to.
//! - **Roots are loaded where they are needed**: the file or the folder that was named, or
//!   else the system's (or `SSL_CERT_FILE` and `SSL_CERT_DIR`), and only if one of the
//!   servers is spoken to by TLS.
//! - **Proxies** are taken from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, by
//!   the HTTP library itself. This host is always reached directly.
//! - **Nothing is sent twice** by itself, but for what the library knows not to have left.

#[cfg(test)]
mod canned;
mod job_token;
mod net;
mod silence;

pub use job_token::{JobToken, NoJobToken};
pub use net::{Net, Roots, Unusable};
pub use silence::{Silence, read_body};
