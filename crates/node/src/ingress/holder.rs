//! Who holds a port, for the error of whoever finds it taken. Linux only, and only as far as `/proc` shows.

use std::fs;

/// The process that listens on a TCP port: `nginx (process 1234)`.
pub fn of_tcp_port(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    of_port(["/proc/net/tcp", "/proc/net/tcp6"], port, Some(LISTEN))
}

/// The process that is bound to a UDP port.
pub fn of_udp_port(port: u16) -> Option<String> {
    of_port(["/proc/net/udp", "/proc/net/udp6"], port, None)
}

fn of_port(tables: [&str; 2], port: u16, state: Option<&str>) -> Option<String> {
    let inode = tables.iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| bound_inode(line, port, state))
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

/// The inode of a line of `/proc/net/tcp` or its like (proc_pid_net(5)), if that is a socket on `port` in `state`.
fn bound_inode(line: &str, port: u16, state: Option<&str>) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let in_state = state.is_none_or(|state| fields.get(3) == Some(&state));
    let here = u16::from_str_radix(local_port, 16).ok()? == port && in_state;
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
        let socket =
            std::net::UdpSocket::bind("[::1]:0").or_else(|_| std::net::UdpSocket::bind("127.0.0.1:0"));
        assert_eq!(of_udp_port(socket.unwrap().local_addr().unwrap().port()), Some(holder));
    }

    #[test]
    fn odd_lines_are_passed_over() {
        for line in ["", "a b c", "0: 0100007F:zz x 0A 1 1 1 1 1 5", "0: 0100007F:0050 x 01 1 1 1 1 1 5"] {
            assert_eq!(bound_inode(line, 80, Some("0A")), None);
        }
        let line = "0: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 0 0 77";
        assert_eq!(bound_inode(line, 80, Some("0A")), Some(77));
        assert_eq!(bound_inode(line, 80, Some("07")), None);
        assert_eq!(bound_inode(line, 80, None), Some(77));
    }
}
