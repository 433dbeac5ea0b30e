//! Scans over whole tokens, hundreds of bytes for every request. Byte by byte, they would cost more than everything else
//! for a request in Wasm, and the Wasm filter is built for size, so that the compiler does not vectorise them. Each takes
//! eight bytes at a time, in one word, and none exits early.

/// Are they equal? Time depends on length only.
pub fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let differ = |all: u64, (one, other): (&[u8; 8], &[u8; 8])| all | (word(one) ^ word(other));
    let differs = |all: u8, (one, other): (&u8, &u8)| all | (one ^ other);
    let in_words = words.iter().zip(other_words).fold(0, differ);
    let in_rest = rest.iter().zip(other_rest).fold(0, differs);
    (one.len() == other.len()) & ((in_words | u64::from(in_rest)) == 0)
}

pub fn has_byte(bytes: &[u8], wanted: u8) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().fold(0, |found, bytes| found | has(word(bytes), wanted)) != 0
        || rest.iter().fold(false, |found, byte| found | (*byte == wanted))
}

/// Visible ASCII without comma, quote and backslash: the characters of a token.
pub fn are_token_bytes(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().fold(0, |strange, bytes| strange | has_strange(word(bytes))) == 0
        && !rest.iter().fold(false, |strange, byte| {
            strange
                | (byte.wrapping_sub(0x21) > 0x7e_u8.wrapping_sub(0x21))
                | (*byte == b',')
                | (*byte == b'"')
                | (*byte == b'\\')
        })
}

/// The highest bit of each byte.
const HIGH: u64 = each(0x80);
const LOW: u64 = !HIGH;

const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*bytes)
}

/// Not 0 if one of the bytes is this one. No sum or difference here carries into the next byte.
fn has(word: u64, byte: u8) -> u64 {
    let zero_if_equal = word ^ each(byte);
    // Its highest bit is set unless the byte is 0.
    let others = ((zero_if_equal & LOW).wrapping_add(LOW)) | zero_if_equal;
    !others & HIGH
}

/// Not 0 if one of the bytes is no character of a token.
fn has_strange(word: u64) -> u64 {
    // Bytes below 0x80 whose sum reaches it: 0x7f.
    let above = (word & LOW).wrapping_add(each(1));
    // Bytes whose difference to 0x80 more stays there: all from 0x21 on.
    let visible = (word | HIGH).wrapping_sub(each(0x21));
    ((word | above | !visible) & HIGH) | has(word, b',') | has(word, b'"') | has(word, b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any vector width of the compiler, and not a multiple of one.
    const LENGTH: usize = 131;

    #[test]
    fn a_difference_is_seen_wherever_it_is() {
        let token = [b'a'; LENGTH];
        assert!(are_equal(&token, &token) && are_equal(b"", b""));
        assert!(!are_equal(&token, &token[1..]) && !are_equal(b"", b"a"));
        for at in 0..LENGTH {
            for bit in 0..8 {
                let mut other = token;
                other[at] ^= 1 << bit;
                assert!(!are_equal(&token, &other), "{at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        assert!(!has_byte(&[b'a'; LENGTH], b',') && !has_byte(b"", b','));
        for at in 0..LENGTH {
            let mut bytes = [b'a'; LENGTH];
            bytes[at] = b',';
            assert!(has_byte(&bytes, b','), "{at}");
        }
    }

    #[test]
    fn each_byte_is_judged_wherever_it_is() {
        for byte in 0..=u8::MAX {
            let fits = matches!(byte, 0x21..=0x7e) && !b",\"\\".contains(&byte);
            for at in [0, 1, 15, 16, 17, 63, 64, 127, 128, LENGTH - 1] {
                let mut bytes = [b'a'; LENGTH];
                bytes[at] = byte;
                assert_eq!(are_token_bytes(&bytes), fits, "{byte:#x} at {at}");
            }
        }
    }
}
