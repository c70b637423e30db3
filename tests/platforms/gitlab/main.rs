//! The GitLab component, run in the pipeline of a project that includes it.

mod documentation;
mod jobs;
mod pipeline;
mod store;
