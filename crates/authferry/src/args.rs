//! The command line: commands, options and their help texts.
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
Exit codes: the command's own code if the login is safe
  119  unsettled: the login may be spent, or a process still uses it
  120  not persisted: a copy is saved in a file or in the second store
  121  not persisted, and no copy is saved: lost, as far as is known
  122  superseded: another writer's login is current, ours is saved
  123  timeout: another job holds the lease, or is rotating the login
  124  refused: nothing was touched
  125  the store or the configuration failed before the command started
  126  the command cannot be executed
  127  command not found
    1  status --check: the login needs attention
    2  invalid command line")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Address of the store [default: $AUTHFERRY_STORE, or a file in the state folder]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) store: Option<String>,
    /// Home folder of Codex [default: $CODEX_HOME, or ~/.codex]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) codex_home: Option<PathBuf>,
    /// Codex program that rotates the login [default: `codex` from PATH]
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub(crate) codex: Option<PathBuf>,
    /// Folder for a login that the store does not accept [default: $AUTHFERRY_RESCUE_DIR, or a
    /// folder in the state folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) rescue_dir: Option<PathBuf>,
    /// Address of a second store for such a login, used instead of the folder [default:
    /// $AUTHFERRY_RESCUE_STORE]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) rescue_store: Option<String>,
    /// Encrypt such a login in the folder to this age recipient; repeatable [default:
    /// $AUTHFERRY_RESCUE_RECIPIENT]
    #[arg(long, global = true, value_name = "RECIPIENT")]
    pub(crate) rescue_recipient: Vec<String>,
    /// Print the outcome as JSON to standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write the outcome as JSON to a file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write masks, annotations, outputs and a job summary for GitHub's runner, which must read
    /// this standard output
    #[arg(long, global = true)]
    pub(crate) github: bool,
    /// Print only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Also print each write to the store
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Restore the login, run a command, and persist each login that Codex writes, even while it
    /// runs
    Run(RunArgs),
    /// Place the login in the home of Codex, and write a receipt for `persist`
    Restore(RestoreArgs),
    /// Persist each login that Codex writes between `restore` and `persist`
    Watch(WatchArgs),
    /// Persist the login that Codex wrote since `restore`
    Persist(PersistArgs),
    /// Rotate the store's login if it is due soon: the scheduled keep-alive
    Refresh(RefreshArgs),
    /// Put a fresh login into the store
    Seed(SeedArgs),
    /// Show, put back or remove rescued logins: copies that the store did not accept
    Rescue(RescueArgs),
    /// Show what the store holds
    Status(StatusArgs),
    /// Check whether a job would start here, and show what the store guarantees
    Doctor(DoctorArgs),
    /// Run the Codex of a rotation, and complete the rotation if its process ends first
    #[command(hide = true)]
    Supervise(SuperviseArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) restoring: RestoringArgs,
    #[command(flatten)]
    pub(crate) rotate_first: RotateFirstArgs,
    #[command(flatten)]
    pub(crate) persisting: PersistingArgs,
    /// Hold the lease for the rotation, or for the whole job: other jobs that need the lease wait
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = LeaseScope::Rotation)]
    pub(crate) lease: LeaseScope,
    /// Run the command again if it fails because another job has spent its login
    #[arg(long)]
    pub(crate) retry_reused: bool,
    /// Grace period for processes that the command leaves behind, or that use the home
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) exit_grace: Duration,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) restoring: RestoringArgs,
    #[command(flatten)]
    pub(crate) rotate_first: RotateFirstArgs,
    /// Start no watch in the background: only `persist` puts a new login into the store
    #[arg(long)]
    pub(crate) no_watch: bool,
    /// Grace period for a Codex that an earlier job left in the home
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) exit_grace: Duration,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) persisting: PersistingArgs,
    /// Continue in the background once the watch is active, and log to this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "report"])]
    pub(crate) detach: Option<PathBuf>,
    /// This process is the one in the background
    #[arg(long, hide = true, requires = "detach")]
    pub(crate) detached: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PersistArgs {
    #[command(flatten)]
    pub(crate) persisting: PersistingArgs,
    /// Do nothing if there is no receipt of `restore`: for a cleanup step that always runs
    #[arg(long)]
    pub(crate) if_restored: bool,
    /// Grace period for processes that use the home: a Codex that may have spent the login gets 90
    /// s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub(crate) exit_grace: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RefreshArgs {
    /// Rotate the login if Codex would rotate it within this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "3d")]
    pub(crate) within: Duration,
    #[command(flatten)]
    pub(crate) rotating: RotatingArgs,
    /// Whose login stays current after a concurrent write; a reseed always does
    #[arg(long, value_name = "WHOSE", value_enum, default_value_t = OnConflict::Newest)]
    pub(crate) on_conflict: OnConflict,
    /// Ping a monitor at the end: a GET of this URL after a success, of URL/fail after a failure
    /// [default: $AUTHFERRY_PING_URL]
    #[cfg(feature = "ping")]
    #[arg(long, value_name = "URL")]
    pub(crate) ping: Option<String>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SeedArgs {
    /// Auth file to put into the store, or `-` for standard input
    pub(crate) file: PathBuf,
    /// Overwrite the store's login, unless that was issued later
    #[arg(long)]
    pub(crate) replace: bool,
    /// Overwrite the store's login even if that was issued later
    #[arg(long, requires = "replace")]
    pub(crate) allow_older: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RescueArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RescueCommand>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RescueCommand {
    /// Show each rescued login: its store, why and when it was saved, and whether it is still of
    /// use
    List(CommonArgs),
    /// Put a login back into the store, and remove the copy
    Put(RescuePutArgs),
    /// Remove a login from the rescue folder or from the second store
    Drop(RescueDropArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RescuePutArgs {
    /// Fingerprint or file of the login [default: the only one of this store]
    #[arg(value_name = "FINGERPRINT|FILE")]
    pub(crate) login: Option<String>,
    /// Overwrite a login that this one does not descend from: starts a new family
    #[arg(long)]
    pub(crate) replace: bool,
    /// Overwrite a later login, or one that descends from this one
    #[arg(long, requires = "replace")]
    pub(crate) allow_older: bool,
    /// Decrypt the login with an age identity in this file
    #[arg(long, value_name = "KEY", requires = "login")]
    pub(crate) identity: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RescueDropArgs {
    /// Fingerprint or file of the login
    #[arg(value_name = "FINGERPRINT|FILE")]
    pub(crate) login: String,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Exit with 1 if the login needs attention: for monitoring
    #[arg(long)]
    pub(crate) check: bool,
    /// A login needs attention if its access token expires within this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2d")]
    pub(crate) within: Duration,
    /// The attention is critical if the provider refuses the login, and its access token expires
    /// within this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "6h")]
    pub(crate) critical: Duration,
    /// Write metrics for Prometheus to a file, or `-` for standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub(crate) prometheus: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Acquire and release the lease, to find out whether this job may write
    #[arg(long)]
    pub(crate) probe: bool,
    /// Continue although the repository is public, or the change comes from a fork
    #[arg(long)]
    pub(crate) allow_untrusted: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SuperviseArgs {
    /// The rotating process, which must be the parent
    #[arg(long)]
    pub(crate) parent: i32,
    /// The private home of the rotation
    #[arg(long)]
    pub(crate) home: PathBuf,
    /// The holder of the lease, as a number
    #[arg(long)]
    pub(crate) holder: u64,
    /// An environment variable that the program does not get
    #[arg(long)]
    pub(crate) withhold: Vec<OsString>,
    /// Whose login stays current
    #[arg(long, value_enum, default_value_t = OnConflict::Newest)]
    pub(crate) on_conflict: OnConflict,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RestoringArgs {
    /// Overwrite an auth file that is unusable, belongs to another account, or may be newer
    #[arg(long)]
    pub(crate) replace: bool,
    /// Seed an empty store from this environment variable; a store with a login is not touched
    #[arg(long, value_name = "VAR")]
    pub(crate) seed_from_env: Option<String>,
    /// Continue although the repository is public, or the change comes from a fork
    #[arg(long)]
    pub(crate) allow_untrusted: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RotateFirstArgs {
    /// Rotate first if Codex would rotate the login within this time [default: $CI_JOB_TIMEOUT, or
    /// 6h]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) rotate_within: Option<Duration>,
    /// Do not rotate first: the Codex in the job rotates the login when it is due
    #[arg(long, conflicts_with_all = ["rotate_within", "lease_timeout"])]
    pub(crate) no_rotate_first: bool,
    /// Give the job the login without its refresh token: many jobs can share one (experimental)
    #[arg(long)]
    pub(crate) access_only: bool,
    #[command(flatten)]
    pub(crate) rotating: RotatingArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RotatingArgs {
    /// How long to wait for another job that is rotating the login
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "3m")]
    pub(crate) lease_timeout: Duration,
    /// How long to hold back the first signal while Codex may have spent the login [default: 20s,
    /// or 3s on GitHub]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) cancel_grace: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PersistingArgs {
    /// Persist a login that belongs to another account than the restored one
    #[arg(long)]
    pub(crate) allow_account_change: bool,
    /// Whose login stays current after a concurrent write; a reseed always does
    #[arg(long, value_name = "WHOSE", value_enum, default_value_t = OnConflict::Newest)]
    pub(crate) on_conflict: OnConflict,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    /// How long to wait for the store
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1m")]
    pub(crate) store_timeout: Duration,
}

/// The values have no help texts: with them, clap would print three lines for each option.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnConflict {
    Newest,
    Theirs,
}

/// How long a job holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeaseScope {
    Rotation,
    Job,
}
