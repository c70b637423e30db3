//! The GitHub action, run like the real runner does.

#[expect(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "shared with the end-to-end tests"
)]
#[path = "../../e2e/any_store.rs"]
mod any_store;
mod console;
mod examples;
#[expect(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../../e2e/ferry.rs"]
mod ferry;
mod job;
mod jobs;
mod owners;
mod program;
mod scene;
#[expect(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../../e2e/vault/site.rs"]
mod site;
mod trust;
