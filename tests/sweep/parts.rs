//! The commands that are swept, and their jobs.

/// One part of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The name, for readers.
    pub(crate) name: &'static str,
    /// The processes in which calls are swept.
    pub(crate) swept: &'static [&'static str],
    /// The job, a shell command: `$A` is authferry.
    pub(crate) job: &'static str,
    /// Whether the login in the store is due.
    pub(crate) is_due: bool,
    /// Whether exit code 0 means that the store holds the live login.
    pub(crate) promises: bool,
}

const STEPS: &str = r#""$A" restore --no-watch || exit; codex exec rotate || exit; "$A" persist"#;

/// Each command of the sweep.
pub(crate) const PARTS: [Part; 7] = [
    Part {
        name: "seed",
        swept: &["seed"],
        job: r#""$A" seed --replace "$ROOT/reseed.json""#,
        is_due: false,
        promises: true,
    },
    Part {
        name: "restore",
        swept: &["restore"],
        job: STEPS,
        is_due: false,
        promises: true,
    },
    Part {
        name: "persist",
        swept: &["persist"],
        job: STEPS,
        is_due: false,
        promises: true,
    },
    Part {
        name: "watch",
        swept: &["watch"],
        job: r#""$A" restore --no-watch || exit; "$A" watch & w=$!
i=0; while [ ! -e "$CODEX_HOME/authferry-watch" ] && [ $i -lt 40 ]; do sleep 0.01; i=$((i+1)); done
codex exec rotate || exit; sleep 0.1; kill "$w"; wait "$w""#,
        is_due: false,
        promises: false,
    },
    Part {
        name: "run_and_rotate",
        swept: &["run"],
        job: r#""$A" run --no-rotate-first -- codex exec"#,
        is_due: true,
        promises: true,
    },
    Part {
        name: "rotate_and_run",
        swept: &["run", "supervise"],
        job: r#""$A" run -- codex exec"#,
        is_due: true,
        promises: true,
    },
    Part {
        name: "refresh",
        swept: &["refresh", "supervise"],
        job: r#""$A" refresh"#,
        is_due: true,
        promises: true,
    },
];
