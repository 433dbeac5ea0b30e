//! Checks on the files that hold the service's secrets.
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::serve::read;

/// # Errors
/// One secret has two roles: a caller that may revoke, or a reader of the proxies' environment, could end sessions.
pub fn check_roles(shared: &[PathBuf], admin: &Path) -> Result<()> {
    let admin_secret = read(admin)?;
    for file in shared {
        if read(file)?.trim_ascii() == admin_secret.trim_ascii() {
            bail!(
                "--secret-file {} and --admin-token-file {} hold the same secret: filters have the first, and the second \
                 ends sessions; make two",
                file.display(),
                admin.display()
            );
        }
    }
    Ok(())
}

/// # Errors
/// A provider has one of the service's own secrets: it could end sessions of other issuers, or read checks.
pub fn check_client_secrets(clients: &[&Path], ours: &[&Path]) -> Result<()> {
    for client in clients {
        let secret = read(client)?;
        for file in ours {
            if read(file)?.trim_ascii() == secret.trim_ascii() {
                bail!(
                    "`secret_file` {} and {} hold the same secret, which the provider knows; create two",
                    client.display(),
                    file.display()
                );
            }
        }
    }
    Ok(())
}

/// Those that every user of this machine can read.
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
