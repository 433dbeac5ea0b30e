//! Certificates for TLS listeners, for Redis and for clients, made by openssl.
use std::path::{Path, PathBuf};
use std::process::Command;

/// A self-signed certificate for `<name>.example`, and its key.
///
/// # Panics
/// There is no openssl, or it fails.
pub fn certificate(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args(["-subj", &format!("/CN={name}.example"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

/// A certificate authority, which signs certificates for 127.0.0.1 and a name.
pub struct Authority {
    pub certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    /// # Panics
    /// There is no openssl, or it will not.
    pub fn new(directory: &Path, name: &str) -> Self {
        let (certificate, key) = certificate(directory, name);
        Self { certificate, key }
    }

    /// A certificate for 127.0.0.1 and `<name>.example`, good for servers and clients, and its key.
    ///
    /// # Panics
    /// As for [`Authority::new`].
    pub fn sign(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
            .args(["-subj", &format!("/CN={name}.example"), "-addext"])
            .arg(format!("subjectAltName=IP:127.0.0.1,DNS:{name}.example"))
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-CA"])
            .arg(&self.certificate)
            .arg("-CAkey")
            .arg(&self.key)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        (certificate, key)
    }
}
