//! Where addresses are: a database in MaxMind's format, read at start and again when its file changes. And how far places are
//! from each other.
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use maxminddb::Reader;
use serde::Deserialize;
use tokio::sync::watch::Receiver;
use wire::sightings::{Client, Place};

/// The largest file. GeoLite2-City has less than 100 MB.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// How often the file is looked at.
const AGAIN: Duration = Duration::from_secs(10);
const EARTH_RADIUS_KM: f64 = 6371.0;

pub struct Places {
    path: PathBuf,
    reader: RwLock<Arc<Reader<Vec<u8>>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is larger than {MAX_BYTES} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path} is no database in MaxMind's format: {message}")]
    Form { path: PathBuf, message: String },
}

/// What is used of a record of GeoIP2 or GeoLite2, Country or City.
#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    country: Country,
    #[serde(default)]
    location: Location,
}

#[derive(Deserialize, Default)]
struct Country {
    iso_code: Option<String>,
}

#[derive(Deserialize, Default)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl Places {
    /// # Errors
    /// The file cannot be used.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        Ok(Self { path: path.to_owned(), reader: RwLock::new(Arc::new(read(path)?)) })
    }

    /// Adds country and place, if the proxy did not say them.
    pub fn locate(&self, client: &mut Client) {
        let Some(network) = client.network else { return };
        if client.country.is_some() && client.place.is_some() {
            return;
        }
        let reader = Arc::clone(&self.reader.read().unwrap_or_else(PoisonError::into_inner));
        let Some((country, place)) = find(&reader, network.network()) else { return };
        client.country = client.country.or(country);
        client.place = client.place.or(place);
    }

    /// Reads the file again when it changes, until `stop`. A file that cannot be used leaves the last one in place.
    pub async fn watch(self: Arc<Self>, mut stop: Receiver<bool>) {
        let mut version = version(&self.path);
        loop {
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let (found, path) = (self::version(&self.path), self.path.clone());
            if found == version {
                continue;
            }
            version = found;
            match tokio::task::spawn_blocking(move || read(&path)).await {
                Ok(Ok(reader)) => {
                    *self.reader.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(reader);
                    tracing::info!(path = %self.path.display(), "the database of places was read again");
                }
                Ok(Err(error)) => tracing::error!(%error, "the earlier database of places stays in use"),
                Err(error) => tracing::error!(%error, "the earlier database of places stays in use"),
            }
        }
    }
}

/// Without the database.
impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("path", &self.path).finish_non_exhaustive()
    }
}

fn version(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<Reader<Vec<u8>>, DatabaseError> {
    let path = || path.to_owned();
    let failed = |source| DatabaseError::Read { path: path(), source };
    if std::fs::metadata(path()).map_err(failed)?.len() > MAX_BYTES {
        return Err(DatabaseError::TooLarge { path: path() });
    }
    let bytes = std::fs::read(path()).map_err(failed)?;
    Reader::from_source(bytes).map_err(|error| DatabaseError::Form { path: path(), message: error.to_string() })
}

/// `None`: the database has nothing about the address, or nothing that can be read.
fn find(reader: &Reader<Vec<u8>>, address: IpAddr) -> Option<(Option<[u8; 2]>, Option<Place>)> {
    let record: Record = reader.lookup(address).ok()?.decode().ok()??;
    let country = record.country.iso_code.and_then(|code| <[u8; 2]>::try_from(code.as_bytes()).ok());
    let country = country.filter(|code| code.iter().all(u8::is_ascii_uppercase));
    let hundredths = |degrees: f64| (degrees.abs() <= 180.0).then_some((degrees * 100.0) as i16);
    let place = record.location.latitude.zip(record.location.longitude);
    let place = place.and_then(|(latitude, longitude)| Place::new(hundredths(latitude)?, hundredths(longitude)?));
    Some((country, place))
}

/// Along the surface of a sphere (haversine).
pub fn distance_km(one: Place, other: Place) -> f64 {
    let radians = |hundredths: i16| (f64::from(hundredths) / 100.0).to_radians();
    let (from, to) = (radians(one.latitude), radians(other.latitude));
    let half = |difference: f64| (difference / 2.0).sin().powi(2);
    let chord = half(to - from) + from.cos() * to.cos() * half(radians(other.longitude) - radians(one.longitude));
    2.0 * EARTH_RADIUS_KM * chord.clamp(0.0, 1.0).sqrt().asin()
}

#[cfg(test)]
mod tests;
