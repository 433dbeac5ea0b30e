//! RSA verification (RFC 8017) with the exponent 65537: the paddings PKCS #1 v1.5 and PSS over [`Modulus`].
//!
//! Ours, since jwt-simple's takes several times as long in Wasm, where no assembly helps it. Nothing here is secret.
use jose::Algorithm;
use sha2::digest::Output;
use sha2::{Digest, Sha256, Sha384, Sha512};

mod modulus;

pub use modulus::Modulus;

/// DER of DigestInfo up to the hash itself (RFC 8017 section 9.2, note 1).
const SHA256_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
const SHA384_INFO: [u8; 19] =
    [0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30];
const SHA512_INFO: [u8; 19] =
    [0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40];

/// Whether `signature` is the key's over `message`; `None` when `alg` is not an RSA algorithm.
pub fn verifies(key: &Modulus, alg: Algorithm, message: &[u8], signature: &[u8]) -> Option<bool> {
    Some(match alg {
        Algorithm::RS256 => pkcs1::<Sha256>(key, &SHA256_INFO, message, signature),
        Algorithm::RS384 => pkcs1::<Sha384>(key, &SHA384_INFO, message, signature),
        Algorithm::RS512 => pkcs1::<Sha512>(key, &SHA512_INFO, message, signature),
        Algorithm::PS256 => pss::<Sha256>(key, message, signature).is_some(),
        Algorithm::PS384 => pss::<Sha384>(key, message, signature).is_some(),
        Algorithm::PS512 => pss::<Sha512>(key, message, signature).is_some(),
        _ => return None,
    })
}

/// Section 8.2.2. The whole encoding that there should be is compared, never the one that is there parsed: parsers of
/// it have been forged to (Bleichenbacher, 2006).
fn pkcs1<D: Digest>(key: &Modulus, info: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(opened) = key.open(signature) else { return false };
    let hash = D::digest(message);
    // 0x00 0x01 PS 0x00 T; PS is at least eight bytes since 2048 bits have room for more than 500 of them.
    let padding = key.bytes().saturating_sub(info.len()).saturating_sub(hash.len()).saturating_sub(3);
    let expected = [0, 1].iter().chain(std::iter::repeat_n(&0xff, padding)).chain(&[0]).chain(info).chain(&hash);
    opened.bytes().iter().eq(expected)
}

/// Section 8.1.2, with MGF1 over the same hash and a salt as long as it (RFC 7518 section 3.5).
fn pss<D: Digest>(key: &Modulus, message: &[u8], signature: &[u8]) -> Option<()> {
    let opened = key.open(signature)?;
    let mut encoded = opened.bytes();
    // One bit less than the modulus, so that the number is always below it: with a modulus of 8k + 1 bits that is one
    // byte less, and the byte left over must say nothing.
    let bits = key.bits().checked_sub(1)?;
    if bits.is_multiple_of(8) {
        let (&spare, rest) = encoded.split_first()?;
        (spare == 0).then_some(())?;
        encoded = rest;
    }
    // Section 9.1.2, its steps by their numbers. 4.
    let (&0xbc, encoded) = encoded.split_last()? else { return None };
    // 5.
    let hash_length = <D as Digest>::output_size();
    let (masked, hash) = encoded.split_at_checked(encoded.len().checked_sub(hash_length)?)?;
    // 6.
    let kept =
        0xff_u8.checked_shr(u32::try_from(encoded.len().checked_add(1)?.checked_mul(8)?.checked_sub(bits)?).ok()?)?;
    (masked.first()? & !kept == 0).then_some(())?;
    // 7 to 9: the mask, taken off block by block.
    let mut data = [0u8; 512];
    let data = data.get_mut(..masked.len())?;
    for (counter, (data, masked)) in (0u32..).zip(data.chunks_mut(hash_length).zip(masked.chunks(hash_length))) {
        let mask = D::new().chain_update(hash).chain_update(counter.to_be_bytes()).finalize();
        for ((data, masked), mask) in data.iter_mut().zip(masked).zip(&mask) {
            *data = masked ^ mask;
        }
    }
    if let Some(first) = data.first_mut() {
        *first &= kept;
    }
    // 10 and 11.
    let (padding, salt) = data.split_at_checked(data.len().checked_sub(hash_length)?)?;
    let (&1, zeros) = padding.split_last()? else { return None };
    zeros.iter().all(|&zero| zero == 0).then_some(())?;
    // 12 to 14.
    let expected: Output<D> =
        D::new().chain_update([0; 8]).chain_update(D::digest(message)).chain_update(salt).finalize();
    (expected.as_slice() == hash).then_some(())
}

#[cfg(test)]
mod tests {
    use jose::{Family, base64url};

    use super::*;
    use crate::vectors;

    fn modulus_of_vectors() -> Vec<u8> {
        base64url::decode(vectors::public_jwk(Family::Rsa)["n"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn verifies_what_the_reference_signs() {
        let key = Modulus::new(&modulus_of_vectors()).unwrap();
        assert_eq!((key.bits(), key.bytes()), (2048, 256));
        for alg in Algorithm::ALL {
            let signature = vectors::sign(alg, b"message");
            let expected = (alg.family() == Family::Rsa).then_some(true);
            assert_eq!(verifies(&key, alg, b"message", &signature), expected, "{alg}");
            assert_eq!(verifies(&key, alg, b"another", &signature), expected.map(|_| false), "{alg}");
        }
    }

    #[test]
    fn raises_to_the_power_of_65537_as_the_reference_does() {
        use superboring::reexports::rsa::BigUint;
        let mut random = vectors::Random::new(1);
        for bits in [2048, 2049, 2052, 2105, 2106, 2107, 2560, 3000, 3072, 3585, 4000, 4095, 4096] {
            for _ in 0..4 {
                let mut n = random.bytes(usize::div_ceil(bits, 8));
                let unused = n.len() * 8 - bits;
                n[0] = (n[0] | 0x80) >> unused;
                *n.last_mut().unwrap() |= 1;
                let key = Modulus::new(&n).unwrap();
                let number = BigUint::from_bytes_be(&n);
                let one = BigUint::from(1u8);
                let mut bases: Vec<BigUint> = vec![BigUint::from(0u8), one.clone(), &number - &one, &one << (bits - 1)];
                bases.extend((0..4).map(|_| BigUint::from_bytes_be(&random.bytes(n.len())) % &number));
                for base in bases {
                    let padded = |number: &BigUint| {
                        let bytes = number.to_bytes_be();
                        [vec![0; n.len() - bytes.len()], bytes].concat()
                    };
                    let expected = base.modpow(&BigUint::from(65537u32), &number);
                    assert_eq!(key.open(&padded(&base)).unwrap().bytes(), padded(&expected), "{bits} bits");
                    let next = &base + &number;
                    if next.bits() <= n.len() * 8 {
                        assert!(key.open(&padded(&next)).is_none());
                    }
                }
                assert!(key.open(&n).is_none());
            }
        }
    }

    #[test]
    fn takes_only_odd_moduli_of_2048_to_4096_bits() {
        let of = |first: u8, bytes: usize, last: u8| {
            let mut n = vec![0xff; bytes];
            (n[0], n[bytes - 1]) = (first, last);
            Modulus::new(&n).map(|n| n.bits())
        };
        assert_eq!(of(0x80, 256, 1), Some(2048));
        assert_eq!(of(0x7f, 256, 1), None);
        assert_eq!(of(0xff, 512, 1), Some(4096));
        assert_eq!(of(0x01, 513, 1), None);
        assert_eq!(of(0x80, 256, 2), None);
        assert_eq!(of(0, 257, 1), None);
        assert!(Modulus::new(&[]).is_none());
    }
}
