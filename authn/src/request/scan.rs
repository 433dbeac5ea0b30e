//! Scans of whole tokens, hundreds of bytes for every request. None leaves early, so that the compiler makes them wide:
//! byte by byte, the usual forms cost a request more than all else that is done for it in Wasm.

/// Are they the same? As long for a first byte that differs as for the last.
pub fn are_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

pub fn has_byte(bytes: &[u8], wanted: u8) -> bool {
    bytes.iter().fold(false, |found, byte| found | (*byte == wanted))
}

/// Visible ASCII without comma, quote and backslash: what a token may be made of.
pub fn are_token_bytes(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |strange, byte| {
        strange
            | (byte.wrapping_sub(0x21) > 0x7e_u8.wrapping_sub(0x21))
            | (*byte == b',')
            | (*byte == b'"')
            | (*byte == b'\\')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any width that a compiler may take, and not a multiple of one.
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
