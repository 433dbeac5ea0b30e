//! The file: created at once or not at all, opened by one process, checked from its first to its last page.
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, Error, ReadableDatabase as _, StorageError};
use store::StoreId;
use store::clock::unix_millis;

use crate::engine::FilePlace;
use crate::log;
use crate::tables::{Bounds, FORM, META, Tables};

/// Nobody else may read it.
const MODE: u32 = 0o600;
/// The most memory for pages of the file.
const CACHE_BYTES: usize = 64 << 20;
/// A smaller file is not compacted when it is opened.
const WORTH_COMPACTING: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "there is no store at {path}: if it is lost, restore it from a backup; to make a new one, without any revocations, run `portcullis store create --store file:{path}`",
        path = .0.display()
    )]
    Missing(PathBuf),
    #[error("{path} is empty, which does not mean that nothing is revoked: if it was a store, restore it; otherwise delete it", path = .0.display())]
    Empty(PathBuf),
    #[error("{path} is in use: another process has opened it, and only one may", path = .0.display())]
    InUse(PathBuf),
    #[error("{path} is not a store of ours", path = .0.display())]
    NotAStore(PathBuf),
    #[error("{path} is damaged ({what}): nothing is answered from it; restore it from a backup", path = .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{path} was written by a later version of portcullis", path = .0.display())]
    Later(PathBuf),
    #[error("{path} is the store {found}, not the one of `store-id`", path = .path.display())]
    Another { path: PathBuf, found: StoreId },
    #[error("{path} exists: an existing file is never replaced", path = .0.display())]
    Exists(PathBuf),
    #[error("cannot use {path}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The sizes of a file in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    pub before: u64,
    pub after: u64,
}

/// An open file, and which store it is.
pub struct Opened {
    pub database: Database,
    pub id: StoreId,
    pub place: FilePlace,
}

/// What can be told of the file without opening it, which a running service would not allow.
///
/// # Errors
/// See [`OpenError`].
pub fn look(path: &Path) -> Result<(), OpenError> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(OpenError::NotAStore(path.to_owned())),
        Ok(metadata) if metadata.len() == 0 => Err(OpenError::Empty(path.to_owned())),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::Missing(path.to_owned())),
        Err(source) => Err(OpenError::Io { path: path.to_owned(), source }),
    }
}

/// Opens the store, and verifies the checksum of every page.
///
/// # Errors
/// See [`OpenError`].
pub fn open(path: &Path) -> Result<Opened, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::Missing(path.to_owned())),
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(OpenError::NotAStore(path.to_owned()));
    }
    if metadata.len() == 0 {
        return Err(OpenError::Empty(path.to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "other users could use the store: its mode is 0600 now");
        file.set_permissions(Permissions::from_mode(MODE)).map_err(io)?;
    }
    let place = FilePlace::of(&metadata);
    let database = database(path, file)?;
    let id = identity(path, &database)?;
    Ok(Opened { database, id, place })
}

/// [`open`], and compacts a file of which most is unused.
///
/// # Errors
/// See [`OpenError`].
pub fn open_to_serve(path: &Path) -> Result<Opened, OpenError> {
    let mut opened = open(path)?;
    let size = size(path)?;
    let used = used(&opened.database).map_err(|error| damaged(path, &error))?;
    if size >= WORTH_COMPACTING && used < size / 2 {
        let Compacted { before, after } = compact_opened(path, &mut opened.database)?;
        tracing::info!(file = %path.display(), before, after, "compacted");
    }
    Ok(opened)
}

/// Creates a new store and returns its id.
///
/// # Errors
/// See [`OpenError`]. An existing file stays as it is.
pub fn create_store(path: &Path) -> Result<StoreId, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let (mut id, mut seed) = ([0; 16], [0; 8]);
    let random = rand::fill(&mut id).and_then(|()| rand::fill(&mut seed));
    random.map_err(|_| io(io::Error::other("no random numbers")))?;
    let id = StoreId::new(id);
    let name = path.file_name().ok_or_else(|| io(io::Error::other("it has no file name")))?;
    // It gets its name once it is complete: a crash leaves no half of a store.
    let new = path.with_file_name(format!(".{}.{id}.new", name.display()));
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(&new);
    let done = made.map_err(io).and_then(|file| {
        let database = database(path, file)?;
        fill(&database, id, seed).map_err(|error| damaged(path, &error))?;
        drop(database);
        // Unlike a rename, this replaces nothing.
        match std::fs::hard_link(&new, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(OpenError::Exists(path.to_owned())),
            linked => linked.map_err(io),
        }
    });
    let _ = std::fs::remove_file(&new);
    done?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(id)
}

/// Moves what is used to the front of the file, and cuts off the rest. No service may run.
///
/// # Errors
/// See [`OpenError`].
pub fn compact(path: &Path) -> Result<Compacted, OpenError> {
    let mut opened = open(path)?;
    compact_opened(path, &mut opened.database)
}

fn compact_opened(path: &Path, database: &mut Database) -> Result<Compacted, OpenError> {
    let before = size(path)?;
    while database.compact().map_err(|error| damaged(path, &error))? {}
    Ok(Compacted { before, after: size(path)? })
}

fn size(path: &Path) -> Result<u64, OpenError> {
    let metadata = std::fs::metadata(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    Ok(metadata.len())
}

fn database(path: &Path, file: File) -> Result<Database, OpenError> {
    let open = || {
        let backend = FileBackend::new(file)?;
        // A file that was changed by others is refused, instead of being trusted.
        Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create_with_backend(backend)
    };
    let damaged = |what: String| OpenError::Damaged { path: path.to_owned(), what };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(OpenError::InUse(path.to_owned())),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) => Err(match error.kind() {
            io::ErrorKind::InvalidData => OpenError::NotAStore(path.to_owned()),
            io::ErrorKind::UnexpectedEof => damaged("it is cut off".to_owned()),
            _ => OpenError::Io { path: path.to_owned(), source: error },
        }),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("it cannot be understood".to_owned())),
    }
}

fn fill(database: &Database, id: StoreId, seed: [u8; 8]) -> Result<(), Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    let bounds = Bounds { max_bytes: u64::MAX, is_disk_full: false };
    let mut tables = Tables::open(&transaction, unix_millis(), bounds)?;
    tables.begin(id)?;
    log::begin(&mut tables, seed)?;
    tables.close()?;
    transaction.commit()?;
    Ok(())
}

fn identity(path: &Path, database: &Database) -> Result<StoreId, OpenError> {
    let read = || {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let value = |name| Ok::<_, Error>(meta.get(name)?.map(|value| value.value().to_vec()));
        Ok::<_, Error>((value("form")?, value("id")?))
    };
    let (form, id) = match read() {
        Ok(read) => read,
        Err(Error::TableDoesNotExist(_) | Error::TableTypeMismatch { .. }) => {
            return Err(OpenError::NotAStore(path.to_owned()));
        }
        Err(error) => return Err(damaged(path, &error)),
    };
    if form.as_deref() != Some(&FORM.to_be_bytes()) {
        return Err(if form.is_some() {
            OpenError::Later(path.to_owned())
        } else {
            OpenError::NotAStore(path.to_owned())
        });
    }
    let id = id.and_then(|id| String::from_utf8(id).ok()?.parse().ok());
    id.ok_or_else(|| OpenError::NotAStore(path.to_owned()))
}

/// The bytes of the pages that are in use.
fn used(database: &Database) -> Result<u64, Error> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    Ok(stats.allocated_pages() * stats.page_size() as u64)
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), what: error.to_string() }
}
