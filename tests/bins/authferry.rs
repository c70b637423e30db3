//! The program under test, built here so that the tests can find it.

fn main() -> std::process::ExitCode {
    authferry::main()
}
