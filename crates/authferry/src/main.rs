//! See `authferry --help`.

fn main() -> std::process::ExitCode {
    authferry::main()
}
