//! Does what the core asks.
