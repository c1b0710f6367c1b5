//! The configuration file: reading it for a command, and writing the first one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ffmesh_core::id::NodeId;
use ffmesh_node::config::{Address, Config};
use tempfile::NamedTempFile;

use crate::failure::{Failure, Outcome};

/// Reads and checks a file. Its warnings are for `up` and `check`.
pub(crate) fn load(path: &Path) -> Outcome<Config> {
    Config::load(path).map(|loaded| loaded.config).map_err(Failure::usage)
}

/// Reads and checks a file if it exists.
pub(crate) fn load_if_there(path: &Path) -> Outcome<Option<Config>> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        _ => load(path).map(Some),
    }
}

/// A new file on its way: it appears under its name when it is complete, and never over another file.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl NewFile {
    /// Makes sure that the file can be written before anything else is done.
    pub(crate) fn prepare(path: &Path) -> Outcome<Self> {
        let failed = |error| Failure::failed(format!("{} cannot be written: {error}", path.display()));
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // It holds no secret; the umask still applies.
        let mode = std::fs::Permissions::from_mode(0o644);
        let file =
            tempfile::Builder::new().prefix(".ffmesh-").permissions(mode).tempfile_in(dir).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Gives the file its contents and its name.
    pub(crate) fn write(mut self, text: &str) -> Outcome {
        let path = self.path;
        let failed = |error: std::io::Error| {
            Failure::failed(format!(
                "the identity was made, but {} could not be written: {error}\nwrite it yourself:\n\n{text}",
                path.display()
            ))
        };
        self.file.write_all(text.as_bytes()).map_err(failed)?;
        self.file.as_file().sync_all().map_err(failed)?;
        self.file.persist_noclobber(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// What the first file of a node says.
#[derive(Debug)]
pub(crate) struct FirstFile<'a> {
    pub(crate) node_id: &'a NodeId,
    /// Only where it is not the default one.
    pub(crate) state_dir: Option<&'a Path>,
    /// A node without it only dials out.
    pub(crate) listen_port: Option<u16>,
    pub(crate) upstreams: &'a [(NodeId, Address)],
}

impl FirstFile<'_> {
    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("node_id: {}\n", quoted(self.node_id.as_str()));
        if let Some(dir) = self.state_dir {
            let _ = writeln!(text, "state_dir: {}", quoted(&dir.to_string_lossy()));
        }
        text.push_str(
            "\n# A port on this node that leads to a service behind another one:\n\
             # proxies:\n\
             #   - name: web\n\
             #     local_port: 8080\n\
             #     target_node_id: \"id of the other node\"\n\
             #     target_address: \"127.0.0.1:80\"\n\n\
             # What other members may dial through this node; without it, 127.0.0.0/8 and ::1 only:\n\
             # access:\n\
             #   - { from: [\"*\"], to: [\"192.168.1.10:80\"], action: allow }\n\n\
             quic:\n",
        );
        match self.listen_port {
            Some(port) => {
                let _ = writeln!(text, "  listen_port: {port} # UDP; open it in the firewall");
            }
            None => text.push_str("  # listen_port: 3334 # UDP; without it this node only dials out\n"),
        }
        if !self.upstreams.is_empty() {
            text.push_str(&upstream_lines(self.upstreams, "  "));
        }
        text
    }
}

/// The lines of `quic.upstreams`, each after `indent`. Without a `name`, as a node may have several addresses.
pub(crate) fn upstream_lines(upstreams: &[(NodeId, Address)], indent: &str) -> String {
    let mut text = format!("{indent}upstreams:\n");
    for (id, address) in upstreams {
        let address = quoted(&format!("{}:{}", address.host, address.port));
        let id = quoted(id.as_str());
        let _ = writeln!(text, "{indent}  - {{ node_id: {id}, address: {address} }}");
    }
    text
}

/// A JSON string is a YAML string (YAML 1.2, section 1.3).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_file_names_what_it_has() {
        let id: NodeId = "b".parse().unwrap();
        let address = Address {
            host: "2001:db8::1".parse::<std::net::IpAddr>().map(ffmesh_core::target::Host::Ip).unwrap(),
            port: 3334,
        };
        let upstreams = [("12345".parse().unwrap(), address)];
        let file = FirstFile { node_id: &id, state_dir: None, listen_port: None, upstreams: &upstreams };
        let text = file.text();
        assert!(text.starts_with("node_id: \"b\"\n"), "{text}");
        assert!(
            text.ends_with("  upstreams:\n    - { node_id: \"12345\", address: \"[2001:db8::1]:3334\" }\n"),
            "{text}"
        );
        let file = FirstFile {
            node_id: &id,
            state_dir: Some(Path::new("/s \"x")),
            listen_port: Some(4000),
            upstreams: &[],
        };
        let text = file.text();
        assert!(
            text.contains("state_dir: \"/s \\\"x\"\n") && text.contains("\n  listen_port: 4000 "),
            "{text}"
        );
    }

    #[test]
    fn a_first_file_is_valid_with_any_number_of_addresses() {
        let address = |host: &str| Address { host: host.parse().unwrap(), port: 3334 };
        let [a, b]: [NodeId; 2] = ["12345", "b"].map(|id| id.parse().unwrap());
        let upstreams = [
            (a.clone(), address("192.0.2.1")),
            (a.clone(), address("[2001:db8::1]")),
            (a, address("vps.example.com")),
            (b, address("192.0.2.2")),
        ];
        let id = "c".parse().unwrap();
        let file = FirstFile { node_id: &id, state_dir: None, listen_port: None, upstreams: &upstreams };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        NewFile::prepare(&path).unwrap().write(&file.text()).unwrap();
        let loaded = Config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings, []);
        let read: Vec<_> = loaded
            .config
            .quic
            .upstreams
            .into_iter()
            .map(|upstream| (upstream.node_id, upstream.address))
            .collect();
        assert_eq!(read, upstreams);
    }

    #[test]
    fn a_new_file_spares_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let late = NewFile::prepare(&path).unwrap();
        NewFile::prepare(&path).unwrap().write("first").unwrap();
        assert_eq!(late.write("second").unwrap_err().status(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
