//! Certificates of an authority of the test's own, made with `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate for the server on this machine, and the authority that signed it.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
    authority: PathBuf,
}

impl Certificates {
    /// Makes them, for 127.0.0.1 and `localhost`.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for certificates");
        let openssl = |arguments: &str| {
            let output = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(folder.path())
                .output()
                .expect("no `openssl` on PATH: apt-get install openssl");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n";
        std::fs::write(folder.path().join("names.cnf"), names).expect("a file in a folder of ours");
        let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "{new} -x509 -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem"
        ));
        openssl(&format!(
            "{new} -subj /CN=server -keyout server.key -out server.csr"
        ));
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names.cnf -out server.pem",
        );
        Self {
            authority: folder.path().join("ca.pem"),
            folder,
        }
    }

    /// The certificate of the authority.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// The server's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.file("server.pem")
    }

    /// Its private key.
    pub(crate) fn key(&self) -> PathBuf {
        self.file("server.key")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::join(self.folder.path(), name)
    }
}
