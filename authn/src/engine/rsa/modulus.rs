//! Arithmetic modulo an RSA modulus: raising to the power 65537, and nothing else.
//!
//! Montgomery multiplication (P. L. Montgomery, 1985) for Wasm, which multiplies 32 bits by 32 to 64 and has no carry
//! flag: limbs of 27 bits, so that a column of 64 bits holds the sum of all its products, and carries are propagated
//! once at the end. Scalar on purpose: with SIMD the compiler multiplies 64 by 64 bits, which is slower.
//!
//! Everything here is public: the key, the signature, and the result. The time may depend on them.

const LIMB_BITS: usize = 27;
const MASK: u32 = (1 << LIMB_BITS) - 1;
/// For 4096 bits and two spare bits that avoid a subtraction after each multiplication.
const MAX_LIMBS: usize = (4096_usize + 2).div_ceil(LIMB_BITS);
// A column takes at most two products in each row.
const _: () = assert!((MAX_LIMBS as u128 * 2) << (2 * LIMB_BITS) < 1 << 63);
const MAX_BYTES: usize = 512;

/// Less than twice the modulus, least significant limb first; limbs past the modulus's length are zero.
type Number = [u32; MAX_LIMBS + 4];

const ZERO: Number = [0; MAX_LIMBS + 4];

/// An odd modulus of 2048 to 4096 bits, with everything precomputed that does not depend on the signature.
#[derive(Clone)]
pub struct Modulus {
    limbs: Box<Number>,
    /// The number of limbs in use. R is 2 to the 27 times this, and more than four times the modulus.
    length: usize,
    bits: usize,
    /// -1 / n modulo 2^27.
    inverse: u32,
    /// R^65537 modulo n: removes at the end the factors by which every multiplication of the power has divided.
    correction: Box<Number>,
}

impl Modulus {
    /// From big-endian bytes without leading zeros; `None` for a length that is not supported, or an even one.
    pub fn new(n: &[u8]) -> Option<Self> {
        let unused = usize::try_from(n.first()?.leading_zeros()).ok()?;
        let bits = n.len().checked_mul(8)?.checked_sub(unused)?;
        let odd = n.last()? & 1 == 1;
        if !odd || unused == 8 || !(2048..=4096).contains(&bits) {
            return None;
        }
        let length = bits.checked_add(2)?.div_ceil(LIMB_BITS).next_multiple_of(4);
        let limbs = Box::new(limbs_of(n)?);
        let low = *limbs.first()?;
        // Newton: each step doubles the number of correct bits, and n itself is correct to three.
        let inverse = (0..4).fold(low, |x, _| x.wrapping_mul(2u32.wrapping_sub(low.wrapping_mul(x))));
        let inverse = inverse.wrapping_neg() & MASK;
        let mut modulus = Self { limbs, length, bits, inverse, correction: Box::new(ZERO) };
        modulus.correction = Box::new(modulus.correction()?);
        Some(modulus)
    }

    /// The modulus's length in bits.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// The modulus's length in bytes.
    pub fn bytes(&self) -> usize {
        self.bits.div_ceil(8)
    }

    /// RSAVP1 (RFC 8017 section 5.2.2): `signature` to the power 65537, in the modulus's length. `None` unless it has
    /// exactly that length and is below the modulus.
    pub fn open(&self, signature: &[u8]) -> Option<Opened> {
        if signature.len() != self.bytes() {
            return None;
        }
        let base = limbs_of(signature)?;
        if !self.is_above(&base) {
            return None;
        }
        let mut power = base;
        for _ in 0..16 {
            power = self.square(&power);
        }
        power = self.multiply(&power, &base);
        power = self.multiply(&power, &self.correction);
        self.reduce(&mut power);
        Some(self.bytes_of(&power))
    }

    /// `a · a / R`, below twice the modulus when `a` is.
    fn square(&self, a: &Number) -> Number {
        self.divide(|column| {
            // Each product of two different limbs counts twice. The middle ones remain from the loop.
            let middle = column / 2;
            let [c0, c1, c2, c3] = self.convolution(a, a, column, middle);
            let [a0, a1, a2, a3] = four(a, middle);
            [
                doubled(c0).wrapping_add(product(a0, a0)),
                doubled(c1.wrapping_add(product(a0, a1))),
                doubled(c2.wrapping_add(product(a0, a2))).wrapping_add(product(a1, a1)),
                doubled(c3.wrapping_add(product(a0, a3)).wrapping_add(product(a1, a2))),
            ]
        })
    }

    /// `a · b / R`, below twice the modulus when both are.
    fn multiply(&self, a: &Number, b: &Number) -> Number {
        let [b0, b1, b2, b3] = four(b, 0);
        self.divide(|column| {
            let [c0, c1, c2, c3] = self.convolution(a, b, column, column);
            let [a0, a1, a2, a3] = four(a, column);
            [
                c0.wrapping_add(product(a0, b0)),
                c1.wrapping_add(product(a0, b1)).wrapping_add(product(a1, b0)),
                c2.wrapping_add(product(a0, b2)).wrapping_add(product(a1, b1)).wrapping_add(product(a2, b0)),
                c3.wrapping_add(product(a0, b3))
                    .wrapping_add(product(a1, b2))
                    .wrapping_add(product(a2, b1))
                    .wrapping_add(product(a3, b0)),
            ]
        })
    }

    /// Divides the number by R, modulo n; its columns are given four at a time from the lowest.
    #[inline(always)]
    fn divide(&self, columns: impl Fn(usize) -> [u64; 4]) -> Number {
        let [n0, n1, n2, n3] = four(&self.limbs, 0);
        // How often the modulus is added so that the lower half becomes zero.
        let mut factors = ZERO;
        let mut quotient = ZERO;
        let mut carry = 0u64;
        let factor = |column: u64| (column as u32).wrapping_mul(self.inverse) & MASK;
        for column in (0..self.length).step_by(4) {
            let [c0, c1, c2, c3] = columns(column);
            let [d0, d1, d2, d3] = self.convolution(&factors, &self.limbs, column, column);
            let c0 = c0.wrapping_add(d0).wrapping_add(carry);
            let m0 = factor(c0);
            let carried = c0.wrapping_add(product(m0, n0)) >> LIMB_BITS;
            let c1 = c1.wrapping_add(d1).wrapping_add(carried).wrapping_add(product(m0, n1));
            let m1 = factor(c1);
            let carried = c1.wrapping_add(product(m1, n0)) >> LIMB_BITS;
            let c2 = c2.wrapping_add(d2).wrapping_add(carried);
            let c2 = c2.wrapping_add(product(m0, n2)).wrapping_add(product(m1, n1));
            let m2 = factor(c2);
            let carried = c2.wrapping_add(product(m2, n0)) >> LIMB_BITS;
            let c3 = c3.wrapping_add(d3).wrapping_add(carried);
            let c3 = c3.wrapping_add(product(m0, n3)).wrapping_add(product(m1, n2)).wrapping_add(product(m2, n1));
            let m3 = factor(c3);
            carry = c3.wrapping_add(product(m3, n0)) >> LIMB_BITS;
            set_four(&mut factors, column, [m0, m1, m2, m3]);
        }
        for column in (0..self.length).step_by(4) {
            let above = column.wrapping_add(self.length);
            let lower = columns(above);
            let upper = self.convolution(&factors, &self.limbs, above, self.length);
            let mut limbs = [0; 4];
            for ((limb, c), d) in limbs.iter_mut().zip(lower).zip(upper) {
                carry = carry.wrapping_add(c).wrapping_add(d);
                *limb = carry as u32 & MASK;
                carry >>= LIMB_BITS;
            }
            set_four(&mut quotient, column, limbs);
        }
        quotient
    }

    /// The contribution of the limbs of `a` below `end`, each with its limb of `b`, to four columns. Four limbs of each
    /// at a time, so that a limb is read once for four products.
    #[inline(always)]
    fn convolution(&self, a: &Number, b: &Number, column: usize, end: usize) -> [u64; 4] {
        let start = column.saturating_sub(self.length);
        let end = end.min(self.length);
        // From b's limb `column - end + 1` on, four for each of a's. Limbs past the last are zero.
        let (Some(a), Some(b)) = (
            a.get(start..end),
            b.get(column.saturating_add(1).saturating_sub(end)..column.saturating_sub(start).saturating_add(4)),
        ) else {
            return [0; 4];
        };
        let [mut c0, mut c1, mut c2, mut c3] = [0u64; 4];
        let (fours, rest) = a.as_chunks::<4>();
        for (&[a0, a1, a2, a3], b) in fours.iter().zip(b.windows(7).rev().step_by(4)) {
            let &[b0, b1, b2, b3, b4, b5, b6] = b else { break };
            c0 = sum(c0, [product(a0, b3), product(a1, b2), product(a2, b1), product(a3, b0)]);
            c1 = sum(c1, [product(a0, b4), product(a1, b3), product(a2, b2), product(a3, b1)]);
            c2 = sum(c2, [product(a0, b5), product(a1, b4), product(a2, b3), product(a3, b2)]);
            c3 = sum(c3, [product(a0, b6), product(a1, b5), product(a2, b4), product(a3, b3)]);
        }
        if let (&[a0, a1], &[b0, b1, b2, b3, b4, ..]) = (rest, b) {
            c0 = sum(c0, [product(a0, b1), product(a1, b0), 0, 0]);
            c1 = sum(c1, [product(a0, b2), product(a1, b1), 0, 0]);
            c2 = sum(c2, [product(a0, b3), product(a1, b2), 0, 0]);
            c3 = sum(c3, [product(a0, b4), product(a1, b3), 0, 0]);
        }
        [c0, c1, c2, c3]
    }

    fn correction(&self) -> Option<Number> {
        let r_bits = self.length.checked_mul(LIMB_BITS)?;
        // R modulo n, from the power of two just below n.
        let mut one: Number = ZERO;
        let top = self.bits.checked_sub(1)?;
        *one.get_mut(top / LIMB_BITS)? = 1 << (top % LIMB_BITS);
        for _ in top..r_bits {
            self.double(&mut one);
        }
        // The power of two whose exponent is R's own: squared and doubled along the bits of that exponent.
        let mut r = one;
        for bit in (0..usize::BITS).rev() {
            r = self.square(&r);
            if (r_bits >> bit) & 1 == 1 {
                self.double(&mut r);
            }
        }
        let mut power = r;
        for _ in 0..16 {
            power = self.square(&power);
        }
        power = self.multiply(&power, &r);
        let mut unit: Number = ZERO;
        *unit.first_mut()? = 1;
        power = self.multiply(&power, &unit);
        Some(power)
    }

    /// Twice the number, below twice the modulus.
    fn double(&self, number: &mut Number) {
        self.reduce(number);
        let mut carry = 0;
        for limb in number.iter_mut().take(self.length) {
            let doubled = (*limb << 1) | carry;
            *limb = doubled & MASK;
            carry = doubled >> LIMB_BITS;
        }
    }

    /// Subtracts the modulus once if possible: a number below twice the modulus is then below it.
    fn reduce(&self, number: &mut Number) {
        if self.is_above(number) {
            return;
        }
        let mut borrow = 0;
        for (limb, &n) in number.iter_mut().zip(self.limbs.iter()) {
            let difference = limb.wrapping_sub(n).wrapping_sub(borrow);
            *limb = difference & MASK;
            borrow = difference >> 31;
        }
    }

    fn is_above(&self, number: &Number) -> bool {
        number.iter().rev().lt(self.limbs.iter().rev())
    }

    fn bytes_of(&self, number: &Number) -> Opened {
        let mut opened = Opened { bytes: [0; MAX_BYTES], length: self.bytes() };
        let (mut held, mut count) = (0u64, 0usize);
        let mut limbs = number.iter();
        for byte in opened.bytes.iter_mut().take(opened.length).rev() {
            if count < 8 {
                held |= u64::from(limbs.next().copied().unwrap_or(0)) << count;
                count = count.wrapping_add(LIMB_BITS);
            }
            *byte = held as u8;
            held >>= 8;
            count = count.wrapping_sub(8);
        }
        opened
    }
}

/// The content of a signature: as many bytes as the modulus has.
pub struct Opened {
    bytes: [u8; MAX_BYTES],
    length: usize,
}

impl Opened {
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

fn four(number: &Number, at: usize) -> [u32; 4] {
    number.get(at..).and_then(|limbs| limbs.first_chunk()).copied().unwrap_or_default()
}

fn set_four(number: &mut Number, at: usize, limbs: [u32; 4]) {
    if let Some(place) = number.get_mut(at..).and_then(|limbs| limbs.first_chunk_mut()) {
        *place = limbs;
    }
}

#[inline(always)]
fn doubled(column: u64) -> u64 {
    column << 1
}

#[inline(always)]
fn sum(start: u64, addends: [u64; 4]) -> u64 {
    addends.into_iter().fold(start, u64::wrapping_add)
}

#[inline(always)]
fn product(a: u32, b: u32) -> u64 {
    u64::from(a).wrapping_mul(u64::from(b))
}

/// From big-endian bytes; `None` when there are too many.
fn limbs_of(bytes: &[u8]) -> Option<Number> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let mut number: Number = ZERO;
    let mut limbs = number.iter_mut();
    let (mut held, mut count) = (0u64, 0usize);
    for &byte in bytes.iter().rev() {
        held |= u64::from(byte) << count;
        count = count.wrapping_add(8);
        if count >= LIMB_BITS {
            *limbs.next()? = held as u32 & MASK;
            held >>= LIMB_BITS;
            count = count.wrapping_sub(LIMB_BITS);
        }
    }
    if let Some(limb) = limbs.next() {
        *limb = held as u32;
    }
    Some(number)
}
