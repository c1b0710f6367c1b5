//! Measures FFMesh beside what others would use: see bench/README.md.
#![cfg_attr(not(target_os = "linux"), allow(unused))]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark says what it measured")]
#![allow(clippy::disallowed_methods, reason = "no async work runs on the threads that sleep")]

#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod candidate;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod command;
#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod echo;
#[cfg(target_os = "linux")]
mod instructions;
#[cfg(target_os = "linux")]
mod line;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod results;
#[cfg(target_os = "linux")]
mod row;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod scale;
#[cfg(target_os = "linux")]
mod site;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod tools;
#[cfg(target_os = "linux")]
mod usage;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    command::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the benchmark needs Linux and its network namespaces");
}
