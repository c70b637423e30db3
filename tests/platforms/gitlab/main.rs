//! GitLab's component, run for real: the pipeline of a project that includes it.

mod jobs;
mod pipeline;
mod store;
mod text;
