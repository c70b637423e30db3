//! GitHub's action, run as the runner runs it.

#[expect(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "shared with the end-to-end tests"
)]
#[path = "../../e2e/any_store.rs"]
mod any_store;
mod console;
#[expect(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../../e2e/ferry.rs"]
mod ferry;
mod job;
mod jobs;
mod newcomer;
mod owners;
mod program;
mod scene;
#[expect(dead_code, reason = "shared with the end-to-end tests")]
#[path = "../../e2e/vault/site.rs"]
mod site;
mod trust;
