//! Hexadecimal digits, as percent-encoding and certificate digests use them.

/// Two digits, in either case.
pub fn byte(high: u8, low: u8) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let byte = value(high)?.checked_mul(16)?.checked_add(value(low)?)?;
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_two_digits_in_either_case_and_nothing_else() {
        assert_eq!((byte(b'0', b'0'), byte(b'f', b'F')), (Some(0), Some(255)));
        assert_eq!((byte(b'0', b'g'), byte(b'+', b'1'), byte(b' ', b'1')), (None, None, None));
    }
}
