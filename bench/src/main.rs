//! Measures FFMesh beside what others would use: see bench/README.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark says what it measured")]
#![allow(clippy::disallowed_methods, reason = "no async work runs on the threads that sleep")]

#[cfg(target_os = "linux")]
mod program;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the benchmark needs Linux and its network namespaces");
}
