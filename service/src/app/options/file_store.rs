//! The store in a file, as an option names it: `file:PATH`.
use std::path::PathBuf;
use std::str::FromStr;

use store_embedded::MIN_MAX_BYTES;

/// How Redis is reached.
const CONNECTION: [&str; 11] = [
    "urls",
    "redis_mode",
    "sentinel_master",
    "redis_username",
    "redis_password_file",
    "sentinel_username",
    "sentinel_password_file",
    "redis_ca_file",
    "redis_cert_file",
    "redis_key_file",
    "redis_timeout",
];

/// What only Redis has. Each is refused beside a file.
pub fn only_redis() -> impl Iterator<Item = &'static str> {
    CONNECTION.into_iter().chain([
        "mirror-redis",
        "mirror-redis-mode",
        "mirror-redis-sentinel-master",
        "mirror-redis-username",
        "mirror-redis-password-file",
        "mirror-redis-sentinel-username",
        "mirror-redis-sentinel-password-file",
        "mirror-redis-ca-file",
        "mirror-redis-cert-file",
        "mirror-redis-key-file",
        "mirror_redis_store_id",
        "mirror_redis_min_replicas",
        "confirm_timeout",
        "dangerously_allow_eviction",
        "dangerously_allow_replica",
        "min_replicas",
    ])
}

/// The same, of `store create`.
pub fn only_redis_to_create() -> impl Iterator<Item = &'static str> {
    CONNECTION.into_iter().chain(["dangerously_allow_eviction", "dangerously_complete"])
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStore(PathBuf);

impl FileStore {
    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

impl FromStr for FileStore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("file:") {
            Some(path) if !path.is_empty() && !path.starts_with("//") => Ok(Self(path.into())),
            Some(_) => Err("give the path after `file:`, without `//`".to_owned()),
            None => Err("write it as file:PATH; Redis is named by --redis".to_owned()),
        }
    }
}

/// Bytes, or with a unit: `512MiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let found = units.iter().find_map(|(unit, shift)| text.strip_suffix(unit).map(|number| (number, *shift)));
    let bytes = found.and_then(|(number, shift)| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= MIN_MAX_BYTES => Ok(bytes),
        Some(_) => Err(format!("must be at least {} MiB", MIN_MAX_BYTES >> 20)),
        None => Err("write it as bytes, or as 512MiB or 2GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_path() {
        assert_eq!("file:/var/lib/store".parse(), Ok(FileStore("/var/lib/store".into())));
        assert_eq!("file:store".parse(), Ok(FileStore("store".into())));
        for wrong in ["", "file:", "file:///store", "store", "redis://x"] {
            assert!(wrong.parse::<FileStore>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_has_a_unit_or_is_in_bytes() {
        assert_eq!((size("1048576"), size("1MiB"), size("2GiB")), (Ok(1 << 20), Ok(1 << 20), Ok(2 << 30)));
        for wrong in ["", "MiB", "-1", "1MB", "1048575", "99999999999999999GiB", "1.5GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
