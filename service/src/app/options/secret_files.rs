//! The files that hold the service's secrets: read, and refused where one secret has two roles.
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use wire::{Secret, SecretTooShort};

use super::OptionsError;

#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the secret file {path}")]
    Secret { path: PathBuf, source: SecretTooShort },
    /// A filter has the first secret, and could end sessions with it.
    #[error(
        "--secret-file {shared} and --admin-token-file {admin} contain the same secret: filters have the first, and the \
         second revokes sessions; use two"
    )]
    SharedIsAdmin { shared: PathBuf, admin: PathBuf },
    /// A provider, an OAuth client or a webhook has it, and could end sessions beyond its own, or read checks.
    #[error("{client} contains the same secret as {ours}, which its holder must not know; use two")]
    ClientIsOurs { client: PathBuf, ours: PathBuf },
}

/// # Errors
/// A file that cannot be used, or one secret twice.
pub fn read_secrets(option: &'static str, paths: &[PathBuf]) -> Result<Vec<Secret>, OptionsError> {
    let mut secrets: Vec<Secret> = Vec::new();
    for path in paths {
        let secret =
            Secret::new(&read(path)?).map_err(|source| SecretFileError::Secret { path: path.clone(), source })?;
        if secrets.contains(&secret) {
            return Err(OptionsError::SameSecretTwice(option));
        }
        secrets.push(secret);
    }
    Ok(secrets)
}

/// # Errors
/// A filter's secret is the admin token.
pub fn check_roles(shared: &[PathBuf], admin: &Path) -> Result<(), SecretFileError> {
    let admin_secret = read(admin)?;
    for file in shared {
        if read(file)?.trim_ascii() == admin_secret.trim_ascii() {
            return Err(SecretFileError::SharedIsAdmin { shared: file.clone(), admin: admin.to_path_buf() });
        }
    }
    Ok(())
}

/// # Errors
/// A secret that a provider, a client or a webhook knows is one of this service.
pub fn check_client_secrets<'f>(
    clients: impl Iterator<Item = &'f Path>,
    ours: impl Iterator<Item = &'f PathBuf> + Clone,
) -> Result<(), SecretFileError> {
    for client in clients {
        let secret = read(client)?;
        for file in ours.clone() {
            if read(file)?.trim_ascii() == secret.trim_ascii() {
                return Err(SecretFileError::ClientIsOurs { client: client.to_path_buf(), ours: file.clone() });
            }
        }
    }
    Ok(())
}

pub fn read(path: &Path) -> Result<Vec<u8>, SecretFileError> {
    std::fs::read(path).map_err(|source| SecretFileError::Read { path: path.to_path_buf(), source })
}

/// The files that every user of this machine can read.
pub fn readable_by_others<'f>(files: impl IntoIterator<Item = &'f Path>) -> Vec<&'f Path> {
    let others_read = |permissions: Permissions| permissions.mode() & 0o004 != 0;
    let is_open =
        |file: &Path| std::fs::metadata(file).is_ok_and(|file| file.is_file() && others_read(file.permissions()));
    files.into_iter().filter(|file| is_open(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_others_can_read_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let file = directory.path().join(name);
            std::fs::write(&file, name).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            file
        };
        let (own, group, all) = (make("own", 0o600), make("group", 0o640), make("all", 0o644));
        let gone = directory.path().join("gone");
        let files = [own.as_path(), &group, &all, &gone];
        assert_eq!(readable_by_others(files), [all.as_path()]);
    }

    #[test]
    fn one_secret_in_two_roles_is_refused_in_one_file_or_two() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let (first, copy, other) = (make("a", "secret"), make("b", "secret\n"), make("c", "another"));
        assert!(check_roles(std::slice::from_ref(&first), &first).is_err());
        assert!(check_roles(&[other.clone(), first.clone()], &copy).is_err());
        assert!(check_roles(&[first, copy], &other).is_ok());
    }
}
