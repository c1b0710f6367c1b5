//! From a file or a text to a checked configuration.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::problem::{Place, Problem, Problems, Report};
use super::{Config, Proxy, Service, read as schema, yaml};

/// Largest file in bytes; one with thousands of proxies is a fifth of this.
const MAX_FILE: u64 = 1 << 20;

/// A configuration that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// What it says that has no effect, in the order of the file: to be shown at the start.
    pub warnings: Vec<Problem>,
}

/// The bytes of a configuration file, at most 1 MiB.
///
/// # Errors
/// One problem of the file as a whole.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Problems> {
    bytes(path, File::open(path))
}

/// The same of a file that is read again while the node runs: it does not wait for who may write to a pipe.
///
/// # Errors
/// One problem of the file as a whole, also where it is no regular file.
pub fn read_again(path: &Path) -> Result<Vec<u8>, Problems> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    if file.as_ref().is_ok_and(|file| file.metadata().is_ok_and(|is| !is.is_file() && !is.is_dir())) {
        let message = "is no regular file, and can't be read again: start the node with one".into();
        return Err(whole(path, message));
    }
    bytes(path, file)
}

fn bytes(path: &Path, file: io::Result<File>) -> Result<Vec<u8>, Problems> {
    let mut bytes = Vec::new();
    let read = file.and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(whole(
            path,
            match error.kind() {
                ErrorKind::NotFound => "there is no such file: check the path".into(),
                ErrorKind::IsADirectory => "is a directory: name the file in it".into(),
                ErrorKind::PermissionDenied => {
                    "must not be read by this user: change its owner or mode, or run as one who may".into()
                }
                _ => format!("can't be read: {error}"),
            },
        ));
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(whole(path, "is larger than 1 MiB: this is no configuration of a node".into()));
    }
    Ok(bytes)
}

fn whole(path: &Path, message: String) -> Problems {
    let file = Some(path.to_owned());
    Problems(vec![Problem { file, line: 0, column: 0, key: String::new(), message }])
}

impl From<Config> for Loaded {
    fn from(config: Config) -> Self {
        Self { config, warnings: Vec::new() }
    }
}

impl Config {
    /// Reads and checks a file of at most 1 MiB of UTF-8. The file is never written.
    pub fn load(path: &Path) -> Result<Loaded, Problems> {
        Self::parse_bytes(&read(path)?, path)
    }

    /// Checks what [`read`] has read of the file at `path`.
    pub fn parse_bytes(bytes: &[u8], path: &Path) -> Result<Loaded, Problems> {
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(whole(path, "is UTF-16: save it as UTF-8".into()));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text, Some(path)),
            Err(error) => {
                let mut report = Report::new(Some(path));
                let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let line = good.matches('\n').count() + 1;
                let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                report.problem(Place { line, column }, "", "is not UTF-8 from here on: save it as UTF-8");
                Err(report.finish().err().unwrap_or(Problems(Vec::new())))
            }
        }
    }

    /// Checks a text; `path` is the file that problems name.
    pub fn parse(text: &str, path: Option<&Path>) -> Result<Loaded, Problems> {
        let mut report = Report::new(path);
        // Editors on Windows start a file with a byte order mark; it says nothing about UTF-8.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut config = yaml::parse(text, &mut report)
            .filter(|root| !matches!(root.kind, yaml::Kind::Null))
            .map(|root| schema::config(&root, &mut report))
            .unwrap_or_default();
        config.path = path.map(Path::to_owned);
        report.finish().map(|warnings| Loaded { config, warnings })
    }
}

impl Proxy {
    /// Checks one proxy as an item of `proxies`, in a text of its own: JSON is YAML. It needs a name. Problems have no file.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        entry(text, schema::one_proxy)
    }
}

impl Service {
    /// Checks one service as an item of `services`, in a text of its own: JSON is YAML. Problems have no file.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        entry(text, schema::one_service)
    }
}

fn entry<T>(
    text: &str,
    schema: impl FnOnce(&yaml::Node, &mut Report<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let mut report = Report::new(None);
    let read = yaml::parse(text, &mut report).and_then(|root| schema(&root, &mut report));
    let empty = || Problem {
        file: None,
        line: 0,
        column: 0,
        key: String::new(),
        message: "is empty: expected a section".into(),
    };
    report.finish()?;
    read.ok_or_else(|| Problems(vec![empty()]))
}
