//! What a test needs of the machine, and what happens where it is missing.

use std::process::{Command, Stdio};

/// Whether this process may make network namespaces. Where it may not, says so; where `CI` is set, panics.
pub fn require_root() -> bool {
    if !rustix::process::geteuid().is_root() {
        return skip("root");
    }
    // Root in a container often lacks CAP_SYS_ADMIN.
    let able = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    able.is_ok_and(|status| status.success()) || skip("root with CAP_SYS_ADMIN")
}

/// Whether all of these programs are installed. Where one is not, says so; where `CI` is set, panics.
pub fn require_programs(programs: &[&str]) -> bool {
    programs.iter().all(|program| is_installed(program) || skip(&format!("the program {program}")))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps nft and nginx where the PATH of other users does not lead.
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

fn skip(what: &str) -> bool {
    let in_ci = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
    assert!(!in_ci, "this test needs {what}, and in CI a skip is a failure");
    eprintln!("skipped: needs {what}");
    false
}
