//! Where this process runs, and whether the platform kills a process at the end of its job.

use std::fs;

/// Marks a process as part of a job on GitHub: when the job ends, the runner kills every process
/// that has it in its environment.
pub(crate) const TRACKING_ID: &str = "RUNNER_TRACKING_ID";

/// The PID namespace in which a machine boots: its number is part of the kernel's interface
/// (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Parts of the control group path of a container that shares the PID namespace of its host.
const CONTAINERS: [&str; 6] = [
    "/docker",
    "/kubepods",
    "/libpod",
    "/containerd",
    "/lxc",
    "/buildkit",
];

/// Whether the platform kills a process when this one ends, or soon after.
pub(crate) fn ends_with_the_job(is_tracked: bool, surroundings: Surroundings) -> bool {
    is_tracked || surroundings.is_container || surroundings.is_first_process
}

/// Where this process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// This process is in a container, whose processes end with its first one.
    pub(crate) is_container: bool,
    /// This process is the first one of its container or PID namespace.
    pub(crate) is_first_process: bool,
}

impl Surroundings {
    pub(crate) fn look() -> Self {
        let namespace = pid_namespace();
        let groups = fs::read_to_string("/proc/self/cgroup");
        Self {
            is_container: is_container(namespace.as_deref(), groups.as_deref().unwrap_or_default()),
            is_first_process: std::process::id() == 1,
        }
    }
}

/// Returns the PID namespace of this process; `None` if `/proc` does not show it.
fn pid_namespace() -> Option<String> {
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(namespace.to_str()?.to_owned())
}

/// Returns the PID namespace of this process, unless it is the machine's own.
pub(crate) fn inner_pid_namespace() -> Option<String> {
    pid_namespace().filter(|namespace| namespace != FIRST_NAMESPACE)
}

/// Whether a process with this PID namespace and these control groups runs in a container. A file
/// such as `/.dockerenv` proves nothing: virtual machines are made from images too.
fn is_container(namespace: Option<&str>, groups: &str) -> bool {
    namespace.is_some_and(|it| it != FIRST_NAMESPACE)
        || CONTAINERS.iter().any(|name| groups.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_job_in_a_container_or_where_the_runner_tracks_it() {
        let machine = Surroundings::default();
        let container = Surroundings {
            is_container: true,
            ..machine
        };
        let first = Surroundings {
            is_first_process: true,
            ..machine
        };
        assert!(!ends_with_the_job(false, machine));
        assert!(ends_with_the_job(true, machine));
        assert!(ends_with_the_job(false, container));
        assert!(ends_with_the_job(false, first));
    }

    #[test]
    fn a_container_is_known_by_its_namespace_or_its_control_group() {
        for (namespace, groups, is) in [
            (
                Some(FIRST_NAMESPACE),
                "0::/user.slice/session-1.scope",
                false,
            ),
            (Some("pid:[4026532201]"), "0::/", true),
            (Some(FIRST_NAMESPACE), "1:cpu:/docker/0123", true),
            (Some(FIRST_NAMESPACE), "0::/kubepods.slice/pod1", true),
            (None, "", false),
        ] {
            assert_eq!(
                is_container(namespace, groups),
                is,
                "{namespace:?} {groups}"
            );
        }
    }
}
