//! Builds web/ with Node and puts the result into the binary as a table. Without Node, or where npm fails, a page that
//! says how to get the console takes its place, and Cargo a warning.
//!
//! `FFMESH_CONSOLE=off` leaves the console out without a warning; `FFMESH_CONSOLE=required` makes it an error that it
//! can't be built.
//!
//! All work is done on a copy in `OUT_DIR`: the source tree stays clean, and two profiles that are built at once do
//! not meet.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What the build of web/ reads.
const SOURCES: [&str; 8] = [
    "src",
    "public",
    "index.html",
    "package.json",
    "package-lock.json",
    ".npmrc",
    "tsconfig.json",
    "vite.config.ts",
];
/// The oldest Node that the tools run on.
const NODE: u32 = 20;
/// Lines of npm's output that a warning repeats.
const TAIL: usize = 12;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let web = root.join("../../web");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=fallback");
    println!("cargo:rerun-if-env-changed=FFMESH_CONSOLE");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", web.join(source).display());
    }
    let wish = env::var("FFMESH_CONSOLE").unwrap_or_default();
    let built =
        if wish == "off" { Err("FFMESH_CONSOLE is off".into()) } else { build(&web, &out.join("web")) };
    let (files, is_built) = match built {
        Ok(dist) => (dist, true),
        Err(error) if wish == "required" => return Err(format!("the web console: {error}").into()),
        Err(error) => {
            if wish != "off" {
                println!(
                    "cargo:warning=this build has no web console: {}",
                    error.to_string().replace('\n', " | ")
                );
                // A file that never is there: the next build tries again.
                println!("cargo:rerun-if-changed={}", out.join("try-again").display());
            }
            (root.join("fallback"), false)
        }
    };
    fs::write(out.join("assets.rs"), table(&files, is_built)?)?;
    Ok(())
}

/// Builds a copy of `web` in `work`; the directory with the result.
fn build(web: &Path, work: &Path) -> Outcome<PathBuf> {
    check_node()?;
    if !web.join("package-lock.json").is_file() {
        return Err("the directory web/ is not there: this is not the whole source".into());
    }
    fs::create_dir_all(work)?;
    for source in SOURCES {
        let to = work.join(source);
        if to.is_dir() {
            fs::remove_dir_all(&to)?;
        }
        copy(&web.join(source), &to)?;
    }
    install(work)?;
    npm(work, &["run", "build"])?;
    Ok(work.join("dist"))
}

fn check_node() -> Outcome<()> {
    let how = format!("install Node {NODE} or newer with npm, then build again");
    let output =
        Command::new("node").arg("--version").output().map_err(|error| format!("node: {error}; {how}"))?;
    let version = String::from_utf8_lossy(&output.stdout);
    let major =
        version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= NODE => Ok(()),
        _ => Err(format!("node is of version {}; {how}", version.trim()).into()),
    }
}

/// Installs what the lock file says, unless that was done already.
fn install(work: &Path) -> Outcome<()> {
    let mark = work.join("installed");
    let lock = fs::read(work.join("package-lock.json"))?;
    let wanted = format!("{:x}", hash(&lock));
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // Without a network it should say so soon, not after minutes. What is only for tests stays away.
    npm(
        work,
        &[
            "ci",
            "--omit=dev",
            "--no-audit",
            "--no-fund",
            "--prefer-offline",
            "--fetch-retries=1",
            "--fetch-retry-mintimeout=1000",
        ],
    )?;
    fs::write(mark, wanted)?;
    Ok(())
}

fn npm(work: &Path, arguments: &[&str]) -> Outcome<()> {
    let name = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let output = Command::new(name)
        .args(arguments)
        .current_dir(work)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name}: {error}; install it, then build again"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("npm {} failed ({}):\n{}", arguments[0], output.status, tail(&output)).into())
}

fn tail(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&all);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The files below a directory, with their paths relative to it.
fn files(directory: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            files(&entry.path(), &name, found)?;
        } else {
            found.push((name, entry.path()));
        }
    }
    Ok(())
}

/// Rust source: the table of assets, sorted by path.
fn table(directory: &Path, built: bool) -> Outcome<String> {
    let mut found = Vec::new();
    files(directory, "", &mut found)?;
    found.sort();
    let mut source =
        format!("pub(crate) const BUILT: bool = {built};\npub(crate) static ASSETS: &[(&str, Asset)] = &[\n");
    for (path, file) in found.iter().filter(|(path, _)| path.rsplit('.').next() != Some("gz")) {
        let compressed = found.iter().find(|(other, _)| *other == format!("{path}.gz"));
        let gzip = match compressed {
            Some((_, file)) => format!("Some(include_bytes!({}))", literal(file)?),
            None => "None".to_owned(),
        };
        let etag = format!("\"{:016x}\"", hash(&fs::read(file)?));
        writeln!(
            source,
            "({path:?}, Asset {{ content_type: {:?}, etag: {etag:?}, bytes: include_bytes!({}), gzip: {gzip}, hashed: {} }}),",
            content_type(path),
            literal(file)?,
            path.starts_with("/assets/"),
        )?;
    }
    source.push_str("];\n");
    Ok(source)
}

/// A path as Rust source.
fn literal(file: &Path) -> Outcome<String> {
    let path = file.canonicalize()?;
    let path = path.to_str().ok_or_else(|| format!("{} is no UTF-8", path.display()))?;
    Ok(format!("{path:?}"))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
