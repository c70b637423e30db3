//! What can be typed.
#![expect(clippy::doc_markdown, reason = "the comments are the help texts")]

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

/// Carry a ChatGPT login of Codex from one ephemeral CI job to the next.
#[derive(Debug, Parser)]
#[command(
    name = "authferry",
    bin_name = "authferry",
    version,
    max_term_width = 100,
    next_line_help = false
)]
#[command(after_help = "\
Exit codes: the command's own when the login is safe
  119  not settled: a Codex is still at work with the login
  120  not persisted, kept in a file or in the second store
  121  not persisted, and lost as far as is known
  122  superseded by somebody else's login, ours is kept
  123  somebody else is rotating the login, and was not done in time
  124  refused before anything was touched
  125  the store or the configuration failed before the command ran
  126  the command cannot be executed
  127  there is no such command
    1  status --check: the login needs attention
    2  the command line makes no sense")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the login is kept [default: $AUTHFERRY_STORE, or a file in the state folder]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) store: Option<String>,
    /// The home of Codex [default: $CODEX_HOME, or ~/.codex]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) codex_home: Option<PathBuf>,
    /// The Codex that rotates the login [default: `codex`, from PATH]
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub(crate) codex: Option<PathBuf>,
    /// Where to keep a login that the store does not accept [default: $AUTHFERRY_RESCUE_DIR, or a
    /// folder in the state folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) rescue_dir: Option<PathBuf>,
    /// A second store, which gets such a login instead of the folder [default:
    /// $AUTHFERRY_RESCUE_STORE]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) rescue_store: Option<String>,
    /// Encrypt such a login in the folder to this age recipient; may be repeated [default:
    /// $AUTHFERRY_RESCUE_RECIPIENT]
    #[arg(long, global = true, value_name = "RECIPIENT")]
    pub(crate) rescue_recipient: Vec<String>,
    /// Print the outcome as JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write the outcome as JSON to a file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Tell GitHub's runner as well, for a step whose standard output it reads
    #[arg(long, global = true)]
    pub(crate) github: bool,
    /// Say nothing unless something is wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Tell each write as well
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Restore the login, run a command, and persist what Codex wrote, even while it runs
    Run(Run),
    /// Place the login in the home of Codex, and leave a receipt for `persist`
    Restore(Restore),
    /// Put what Codex writes into the store between `restore` and `persist`
    Watch(Watch),
    /// Put what Codex wrote since `restore` into the store
    Persist(Persist),
    /// Let Codex rotate the login in the store if that is due soon: the scheduled keep-alive
    Refresh(Refresh),
    /// Put a fresh login into the store
    Seed(Seed),
    /// Show, put back or remove logins that this machine keeps and the store does not hold
    Rescue(Rescue),
    /// Show what the store holds
    Status(Status),
    /// Look whether a job would begin here, and what the store is worth
    Doctor(Doctor),
    /// Run the Codex of a rotation, and complete the rotation if its process ends first
    #[command(hide = true)]
    Apart(Apart),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) restoring: Restoring,
    #[command(flatten)]
    pub(crate) ahead: Ahead,
    #[command(flatten)]
    pub(crate) persisting: Persisting,
    /// For what the claim to rotate is held: other jobs that hold it for theirs wait
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Lease::Rotation)]
    pub(crate) lease: Lease,
    /// Run the command once more if it fails because another job has spent its login
    #[arg(long)]
    pub(crate) retry_reused: bool,
    /// How long processes may stay that the command leaves behind, or others that use the home
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) linger: Duration,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) restoring: Restoring,
    #[command(flatten)]
    pub(crate) ahead: Ahead,
    /// Start no watch in the background: only `persist` puts what Codex writes into the store
    #[arg(long)]
    pub(crate) no_watch: bool,
    /// How long a Codex may stay that an earlier job left in the home
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) linger: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) persisting: Persisting,
    /// Go on in the background once nothing can be missed, and say to a file what there is to say
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "report"])]
    pub(crate) detach: Option<PathBuf>,
    /// This is the one in the background
    #[arg(long, hide = true, requires = "detach")]
    pub(crate) detached: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Persist {
    #[command(flatten)]
    pub(crate) persisting: Persisting,
    /// Do nothing if there is no receipt of `restore`: for a safety net that always runs
    #[arg(long)]
    pub(crate) if_restored: bool,
    /// How long processes may stay that use the home: a Codex that may have spent the login has 90 s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) linger: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Refresh {
    /// Rotate what Codex would rotate within this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "3d")]
    pub(crate) within: Duration,
    #[command(flatten)]
    pub(crate) rotating: Rotating,
    /// Whose login stays current when the store moved meanwhile; a reseed always does
    #[arg(long, value_name = "WHOSE", value_enum, default_value_t = OnConflict::Newest)]
    pub(crate) on_conflict: OnConflict,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Seed {
    /// The auth file to be put into the store, or `-` for standard input
    pub(crate) file: PathBuf,
    /// Put it over what the store holds, unless that was issued later
    #[arg(long)]
    pub(crate) replace: bool,
    /// Put it over what the store holds even if that was issued later
    #[arg(long, requires = "replace")]
    pub(crate) allow_older: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Rescue {
    #[command(subcommand)]
    pub(crate) command: Option<RescueCommand>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RescueCommand {
    /// Show whose each login is, why and when it was kept, and what it is worth now
    List(Common),
    /// Put a login back into the store, and remove the copy
    Put(RescuePut),
    /// Remove a login from the rescue folder or from the second store
    Drop(RescueDrop),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RescuePut {
    /// The login's fingerprint, or a file [default: the only one of this store]
    #[arg(value_name = "FINGERPRINT|FILE")]
    pub(crate) login: Option<String>,
    /// Put it over a login that it does not descend from: it begins a new family
    #[arg(long)]
    pub(crate) replace: bool,
    /// Put it over a later login, or over one that was made from it
    #[arg(long, requires = "replace")]
    pub(crate) allow_older: bool,
    /// Decrypt the login with an age identity in this file
    #[arg(long, value_name = "KEY", requires = "login")]
    pub(crate) identity: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RescueDrop {
    /// The login's fingerprint, or its file
    #[arg(value_name = "FINGERPRINT|FILE")]
    pub(crate) login: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Exit with 1 if the login needs attention: for monitors
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Take the claim to rotate the login, and give it back: whether this job may write shows then
    #[arg(long)]
    pub(crate) probe: bool,
    /// Go on although the repository is public, or the change comes from a fork
    #[arg(long)]
    pub(crate) allow_untrusted: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Apart {
    /// The rotating process, which must be the parent
    #[arg(long)]
    pub(crate) parent: i32,
    /// The home in which the login is rotated
    #[arg(long)]
    pub(crate) home: PathBuf,
    /// Who holds the claim
    #[arg(long)]
    pub(crate) holder: u64,
    /// An environment variable that the program does not get
    #[arg(long)]
    pub(crate) withhold: Vec<OsString>,
    /// Whose login stays current
    #[arg(long, value_enum, default_value_t = OnConflict::Newest)]
    pub(crate) on_conflict: OnConflict,
    #[command(flatten)]
    pub(crate) common: Common,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restoring {
    /// Let go of an auth file that is unusable, of another account, or not known to be older
    #[arg(long)]
    pub(crate) replace: bool,
    /// Fill an empty store from this environment variable; a filled one is not touched
    #[arg(long, value_name = "VAR")]
    pub(crate) seed_from_env: Option<String>,
    /// Go on although the repository is public, or the change comes from a fork
    #[arg(long)]
    pub(crate) allow_untrusted: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ahead {
    /// Rotate first what Codex would rotate within this time [default: $CI_JOB_TIMEOUT, or 6h]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) horizon: Option<Duration>,
    /// Leave the rotation to the Codex in the job, whenever that comes to it
    #[arg(long, conflicts_with_all = ["horizon", "wait"])]
    pub(crate) no_rotate_first: bool,
    /// Give the job the login without its refresh token: many can share one (experimental)
    #[arg(long)]
    pub(crate) access_only: bool,
    #[command(flatten)]
    pub(crate) rotating: Rotating,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rotating {
    /// How long another job may take to rotate the login
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "3m")]
    pub(crate) wait: Duration,
    /// How long the first signal is held back while Codex may have spent the login [default: 20s,
    /// or 3s on GitHub]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) cancel_grace: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Persisting {
    /// Persist a login of another account than was restored
    #[arg(long)]
    pub(crate) allow_account_change: bool,
    /// Whose login stays current when the store moved meanwhile; a reseed always does
    #[arg(long, value_name = "WHOSE", value_enum, default_value_t = OnConflict::Newest)]
    pub(crate) on_conflict: OnConflict,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// How long the store may take
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1m")]
    pub(crate) patience: Duration,
}

/// Values without a text of their own, or clap would give each option three lines.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnConflict {
    Newest,
    Theirs,
}

/// For what a claim is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lease {
    Rotation,
    Job,
}
