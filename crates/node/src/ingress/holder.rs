//! Who holds a port, for the error of whoever finds it taken. Linux only, and only as far as `/proc` shows.

use std::fs;

/// The process that listens on a TCP port: `nginx (process 1234)`.
pub(super) fn of_tcp_port(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| listening_inode(line, port))
    })?;
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        descriptors.find(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("{} (process {pid})", name.trim().escape_debug()))
    })
}

/// The inode of a line of `/proc/net/tcp` (proc_pid_net(5)), if that is a listener on `port`.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let here = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTEN;
    if here { fields.get(9)?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn finds_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of_tcp_port(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&format!("(process {})", std::process::id())), "{holder}");
    }

    #[test]
    fn odd_lines_are_passed_over() {
        for line in ["", "a b c", "0: 0100007F:zz x 0A 1 1 1 1 1 5", "0: 0100007F:0050 x 01 1 1 1 1 1 5"] {
            assert_eq!(listening_inode(line, 80), None);
        }
        assert_eq!(listening_inode("0: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 0 0 77", 80), Some(77));
    }
}
