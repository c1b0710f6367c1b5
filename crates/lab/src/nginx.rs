//! A web server as people run it.

use std::path::Path;
use std::time::Duration;

use crate::conn::Conn;
use crate::net::Net;
use crate::process::Process;
use crate::wait::until;

/// nginx in a namespace, with its own configuration and pages.
#[derive(Debug)]
pub struct Nginx {
    _process: Process,
}

impl Nginx {
    /// Serves `pages` (file name and content) on `address`, once this returns. `dir` is made for it.
    ///
    /// # Panics
    /// When nginx does not start.
    pub fn start(net: &Net, dir: &Path, address: &str, pages: &[(&str, &[u8])]) -> Self {
        let root = dir.join("pages");
        std::fs::create_dir_all(&root).expect("make the directory of the pages");
        for (name, content) in pages {
            std::fs::write(root.join(name), content).expect("write a page");
        }
        let at = dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {at}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n    access_log off;\n{temporary}    \
             server {{ listen {address}; root {at}/pages; default_type text/plain; }}\n}}\n"
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config).expect("write the configuration");
        let mut command = net.command("nginx");
        command.arg("-e").arg("stderr").arg("-c").arg(&file).arg("-p").arg(dir);
        let process = Process::start("nginx", command, &dir.join("nginx.log"));
        let up = || net.inside(|| Conn::open(address)).is_ok();
        until(&format!("nginx listens on {address}"), Duration::from_secs(10), up);
        Self { _process: process }
    }
}
