//! A PKCS#11 module, loaded once for all keys in its tokens: finds a token, logs in to it, and begins anew when it was lost.
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use aws_lc_rs::digest;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::error::TokenError;
use super::uri::Pkcs11Uri;

/// The longest PIN, in bytes. A longer file is not a PIN.
const MAX_PIN: u64 = 1024;
/// PINs that are remembered as refused; the oldest makes room. No token takes so many tries.
const MAX_REFUSED: usize = 64;
/// Tokens that an error names.
const MAX_NAMED: usize = 8;

/// Modules stay until the process ends: two of one library would share its state, and one that hangs must not hold up the end.
static LOADED: Mutex<Vec<Arc<Module>>> = Mutex::new(Vec::new());

#[derive(Debug)]
pub struct Module {
    path: PathBuf,
    /// A call into the module takes the read lock, initialising it again the write lock.
    context: RwLock<Context>,
    /// Held while a PIN is tried: for each slot, the digests of PINs that were refused since one was good. A token locks
    /// itself after a few, whichever keys of it have them.
    refused: Mutex<HashMap<u64, Vec<[u8; 32]>>>,
}

#[derive(Debug)]
pub struct Context {
    pkcs11: Pkcs11,
    /// Handles of an earlier one mean nothing in this one, or something else.
    pub epoch: u64,
}

impl Module {
    /// # Errors
    /// It is not there, is no PKCS#11 module, or does not start.
    pub fn load(path: &Path) -> Result<Arc<Self>, TokenError> {
        let failed = |why: String| TokenError::Module { path: path.to_path_buf(), why };
        // By its true name: one library under two would be started twice.
        let true_path = path.canonicalize().map_err(|error| failed(error.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.iter().find(|module| module.path == true_path) {
            return Ok(Arc::clone(known));
        }
        let pkcs11 = Pkcs11::new(&true_path).map_err(|error| failed(TokenError::Call(error).to_string()))?;
        start(&pkcs11).map_err(|error| failed(TokenError::Call(error).to_string()))?;
        let context = RwLock::new(Context { pkcs11, epoch: 0 });
        let module = Arc::new(Self { path: true_path, context, refused: Mutex::default() });
        loaded.push(Arc::clone(&module));
        Ok(module)
    }

    pub fn context(&self) -> RwLockReadGuard<'_, Context> {
        self.context.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// C_Finalize and C_Initialize: many modules see a token that came back, or reach their device again, only after that.
    /// Does nothing while a call is in progress, which may hang.
    pub fn begin_anew(&self) {
        let Ok(mut context) = self.context.try_write() else { return };
        let path = self.path.display();
        match context.pkcs11.clone().finalize() {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
            // Its sessions are still open, and still ours to close.
            Err(error) => {
                return tracing::warn!(module = %path, error = %TokenError::Call(error), "the module does not end");
            }
        }
        context.epoch += 1;
        if let Err(error) = start(&context.pkcs11) {
            tracing::warn!(module = %path, error = %TokenError::Call(error), "the module does not start anew");
        }
    }

    /// A session in which the token's user is logged in. The caller closes it.
    ///
    /// # Errors
    /// No such token, a PIN that is or was refused, or a call that failed.
    pub fn open(&self, context: &Context, uri: &Pkcs11Uri) -> Result<Session, TokenError> {
        let slot = context.find(uri)?;
        let session = context.pkcs11.open_ro_session_no_drop(slot)?;
        match self.log_in(context, &session, slot, uri) {
            Ok(()) => Ok(session),
            Err(error) => {
                let _ = session.close();
                Err(error)
            }
        }
    }

    fn log_in(&self, context: &Context, session: &Session, slot: Slot, uri: &Pkcs11Uri) -> Result<(), TokenError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (pin, digest) = read_pin(&uri.pin)?;
        if refused.get(&slot.id()).is_some_and(|known| known.contains(&digest)) {
            return Err(TokenError::PinKnownWrong);
        }
        // Whoever starts us again and again does not know what was refused before; the token does. Asked now, since
        // somebody else may have used a try up while we waited.
        let token = context.pkcs11.get_token_info(slot)?;
        if token.user_pin_locked() {
            return Err(TokenError::PinLocked);
        }
        if token.user_pin_final_try() {
            return Err(TokenError::PinFinalTry);
        }
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) => {
                refused.remove(&slot.id());
                Ok(())
            }
            // One login is for all sessions of a process with a token.
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            // A vendor's own code may well mean that, and a locked token is worse than a restart.
            Err(Error::Pkcs11(
                code @ (RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked
                | RvError::VendorDefined(_)),
                _,
            )) => {
                let known = refused.entry(slot.id()).or_default();
                if known.len() >= MAX_REFUSED {
                    known.remove(0);
                }
                known.push(digest);
                Err(TokenError::PinRefused(format!("{code:?}")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Context {
    fn find(&self, uri: &Pkcs11Uri) -> Result<Slot, TokenError> {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let (mut matching, mut others) = (Vec::new(), Vec::new());
        for slot in self.pkcs11.get_slots_with_token()? {
            // One that is being taken out does not hide the others.
            let Ok(token) = self.pkcs11.get_token_info(slot) else { continue };
            let matches = token.token_initialized()
                && is(&uri.token, token.label())
                && is(&uri.serial, token.serial_number())
                && is(&uri.model, token.model())
                && is(&uri.manufacturer, token.manufacturer_id())
                && uri.slot.is_none_or(|wanted| wanted == slot.id());
            match matches {
                true => matching.push(slot),
                false if token.token_initialized() && others.len() < MAX_NAMED => {
                    others.push(format!("`{}` (serial {})", token.label(), token.serial_number()));
                }
                false => {}
            }
        }
        match (matching.pop(), matching.len()) {
            (Some(found), 0) => Ok(found),
            (Some(_), more) => Err(TokenError::Tokens(more + 1)),
            (None, _) if others.is_empty() => Err(TokenError::NoToken("none".into())),
            (None, _) => Err(TokenError::NoToken(others.join(", "))),
        }
    }
}

fn start(pkcs11: &Pkcs11) -> Result<(), Error> {
    match pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        result => result,
    }
}

/// The first line, and the digest that it is remembered by.
fn read_pin(path: &Path) -> Result<(AuthPin, [u8; 32]), TokenError> {
    let failed = |why: String| TokenError::PinFile { path: path.to_path_buf(), why };
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_PIN + 1).read_to_end(&mut text));
    if read.map_err(|error| failed(error.to_string()))? as u64 > MAX_PIN {
        return Err(failed(format!("has more than {MAX_PIN} bytes")));
    }
    let text = String::from_utf8(text).map_err(|_| failed("is not UTF-8".into()))?;
    let pin = text.strip_suffix('\n').unwrap_or(&text);
    let pin = pin.strip_suffix('\r').unwrap_or(pin);
    if pin.is_empty() || pin.contains('\n') {
        return Err(failed("must have one line".into()));
    }
    let mut known = [0; 32];
    known.copy_from_slice(digest::digest(&digest::SHA256, pin.as_bytes()).as_ref());
    Ok((AuthPin::from(pin), known))
}
