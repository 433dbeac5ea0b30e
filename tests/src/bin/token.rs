//! Creates keys in a SoftHSM token, for tests: each in a separate process, since the library has one state and one
//! configuration (SOFTHSM2_CONF) per process.
//!
//! ```text
//! token MODULE LABEL PIN [KIND:NAME …]     creates the token if there is none with this label, then the keys
//! ```
//! KIND is `rsa`, `p256`, `p384`, `ed25519`; `mute` for a P-256 key that may not sign, and `strange` for one whose
//! public half belongs to another key. NAME becomes CKA_LABEL and CKA_ID.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests: what cannot be done ends the process"
)]
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

const SO_PIN: &str = "security-officer";
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, label, pin, keys @ ..] = arguments.as_slice() else {
        panic!("token MODULE LABEL PIN [KIND:NAME …]")
    };
    let pkcs11 = Pkcs11::new(module).expect("the module loads");
    pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("the module starts");
    let pin = AuthPin::from(pin.as_str());
    let slot = find(&pkcs11, label).unwrap_or_else(|| make(&pkcs11, label, &pin));
    let session = pkcs11.open_rw_session(slot).expect("a session");
    session.login(UserType::User, Some(&pin)).expect("the PIN is right");
    for key in keys {
        let (kind, name) = key.split_once(':').expect("KIND:NAME");
        generate(&session, kind, name);
    }
}

fn find(pkcs11: &Pkcs11, label: &str) -> Option<Slot> {
    let slots = pkcs11.get_slots_with_initialized_token().expect("slots");
    slots.into_iter().find(|slot| pkcs11.get_token_info(*slot).is_ok_and(|token| token.label() == label))
}

fn make(pkcs11: &Pkcs11, label: &str, pin: &AuthPin) -> Slot {
    let so_pin = AuthPin::from(SO_PIN);
    let slots = pkcs11.get_slots_with_token().expect("slots");
    let free =
        slots.into_iter().find(|slot| pkcs11.get_token_info(*slot).is_ok_and(|token| !token.token_initialized()));
    let slot = free.expect("SoftHSM has a slot for a new token");
    pkcs11.init_token(slot, &so_pin, label).expect("a token is made");
    let slot = find(pkcs11, label).expect("the new token has a slot");
    let session = pkcs11.open_rw_session(slot).expect("a session");
    session.login(UserType::So, Some(&so_pin)).expect("the officer's PIN is right");
    session.init_pin(pin).expect("the PIN is set");
    slot
}

fn generate(session: &Session, kind: &str, name: &str) {
    let (mechanism, what) = match kind {
        "rsa" => {
            let what = vec![Attribute::ModulusBits(2048.into()), Attribute::PublicExponent(vec![1, 0, 1])];
            (Mechanism::RsaPkcsKeyPairGen, what)
        }
        "p384" => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P384.to_vec())]),
        "ed25519" => (Mechanism::EccEdwardsKeyPairGen, vec![Attribute::EcParams(ED25519.to_vec())]),
        _ => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P256.to_vec())]),
    };
    let named = |name: &str| vec![Attribute::Label(name.into()), Attribute::Id(name.into()), Attribute::Token(true)];
    let make = |public: &str, private: &str| {
        let public = [named(public), what.clone(), vec![Attribute::Verify(true), Attribute::Private(false)]].concat();
        let kept = [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)];
        let private = [named(private), kept.to_vec(), vec![Attribute::Sign(kind != "mute")]].concat();
        session.generate_key_pair(&mechanism, &public, &private).expect("a pair of keys");
    };
    match kind {
        "strange" => {
            make(name, "unused");
            make("unused", name);
        }
        _ => make(name, name),
    }
}
