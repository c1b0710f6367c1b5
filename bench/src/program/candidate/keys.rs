//! Keys and certificates for the candidates that want them, made once a run with openssl(1).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ffmesh_lab::run;

/// The password of PKCS 12 files: rathole wants one.
pub(crate) const PASSWORD: &str = "bench";

/// Files in a directory: `ca.pem`, and for `server` and `client` a key, a certificate, both in one, and PKCS 12.
#[derive(Debug)]
pub(crate) struct Keys(PathBuf);

impl Keys {
    /// Names are `server.bench` and `client.bench`; keys are on P-256.
    pub(crate) fn make(dir: &Path) -> Result<Self, String> {
        let fails = |e: std::io::Error| format!("can't make keys in {}: {e}", dir.display());
        std::fs::create_dir_all(dir).map_err(fails)?;
        let new_key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365";
        let v3 = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
        openssl(dir, &format!("{new_key} -subj /CN=bench -keyout ca.key -out ca.pem {v3}"))?;
        for name in ["server", "client"] {
            let usage = format!("-addext keyUsage=digitalSignature -addext extendedKeyUsage={name}Auth");
            openssl(
                dir,
                &format!(
                    "{new_key} -CA ca.pem -CAkey ca.key -subj /CN={name}.bench -keyout {name}.key -out {name}.pem \
                     -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:{name}.bench {usage}"
                ),
            )?;
            let read = |end: &str| std::fs::read_to_string(dir.join(format!("{name}.{end}"))).map_err(fails);
            std::fs::write(dir.join(format!("{name}.both")), read("pem")? + &read("key")?).map_err(fails)?;
            openssl(
                dir,
                &format!(
                    "pkcs12 -export -inkey {name}.key -in {name}.pem -certfile ca.pem -passout pass:{PASSWORD} \
                     -out {name}.p12"
                ),
            )?;
        }
        Ok(Self(dir.to_owned()))
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.0.join(file).to_string_lossy().into_owned()
    }
}

fn openssl(dir: &Path, arguments: &str) -> Result<(), String> {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(arguments.split_whitespace());
    let outcome = run(command, Duration::from_secs(20));
    if outcome.is_success() { Ok(()) } else { Err(format!("openssl {arguments}: {}", outcome.said().trim())) }
}
