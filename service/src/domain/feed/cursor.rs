//! A follower's place, as it is sent to it. Every instance makes the same of it, or refuses it.
//!
//! ```text
//! version u8 | digest 16 | state u8 | mark × shards
//! state      0: following | 1: in a snapshot, then: piece u16 | pieces u16
//! mark       sequence u16 | chain u16     the low bits of the sequence, the first of the chain
//! ```
//! The digest is over all places in full. So a cursor is understood only if each of its places is in this instance's history.
use aws_lc_rs::digest::{SHA256, digest};
use store::Place;
use wire::feed::{Cursor, MAX_PIECES};

use super::history::Mark;

const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Following,
    /// This piece is next, of a snapshot that began at the places.
    Piece {
        piece: u16,
        pieces: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub step: Step,
    pub digest: [u8; 16],
    pub marks: Vec<Mark>,
}

impl Parsed {
    /// `None`: the start, or not a cursor of this version.
    pub fn read(cursor: &Cursor) -> Option<Self> {
        let (head, rest) = cursor.bytes().split_first_chunk::<18>()?;
        let [VERSION, digest @ .., state] = *head else { return None };
        let (step, rest) = match state {
            0 => (Step::Following, rest),
            1 => {
                let ([a, b, c, d], rest) = rest.split_first_chunk::<4>()?;
                let (piece, pieces) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                if piece >= pieces || pieces > MAX_PIECES {
                    return None;
                }
                (Step::Piece { piece, pieces }, rest)
            }
            _ => return None,
        };
        let (marks, rest) = rest.as_chunks::<4>();
        let mark = |[a, b, c, d]: &[u8; 4]| Mark {
            sequence: u16::from_be_bytes([*a, *b]),
            chain: u16::from_be_bytes([*c, *d]),
        };
        rest.is_empty().then(|| Self { step, digest, marks: marks.iter().map(mark).collect() })
    }
}

/// `None`: there are too many shards for a cursor.
pub fn write(step: Step, places: &[Place]) -> Option<Cursor> {
    let mut bytes = Vec::with_capacity(places.len() * 4 + 22);
    bytes.push(VERSION);
    bytes.extend_from_slice(&digest_of(places));
    match step {
        Step::Following => bytes.push(0),
        Step::Piece { piece, pieces } => {
            bytes.push(1);
            bytes.extend_from_slice(&piece.to_be_bytes());
            bytes.extend_from_slice(&pieces.to_be_bytes());
        }
    }
    for place in places {
        let Mark { sequence, chain } = Mark::of(*place);
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&chain.to_be_bytes());
    }
    Cursor::new(bytes).ok()
}

pub fn digest_of(places: &[Place]) -> [u8; 16] {
    let mut bytes = Vec::with_capacity(places.len() * 16);
    for place in places {
        bytes.extend_from_slice(&place.sequence.to_be_bytes());
        bytes.extend_from_slice(&place.chain);
    }
    digest(&SHA256, &bytes).as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_written_and_fits() {
        let places: Vec<_> = (0..256).map(|n| Place { sequence: n * 1000, chain: (n * 77).to_le_bytes() }).collect();
        for step in [Step::Following, Step::Piece { piece: 3, pieces: 16 }] {
            let cursor = write(step, &places).unwrap();
            let read = Parsed::read(&cursor).unwrap();
            assert_eq!((read.step, read.digest), (step, digest_of(&places)));
            assert_eq!(read.marks, places.iter().map(|place| Mark::of(*place)).collect::<Vec<_>>());
            for cut in [1, 17, 18, 19, cursor.bytes().len() - 1] {
                let cut = Parsed::read(&Cursor::new(cursor.bytes()[..cut].to_vec()).unwrap());
                assert!(cut.is_none_or(|cut| cut.marks.len() < 256));
            }
        }
        let beyond = write(Step::Piece { piece: 16, pieces: 16 }, &places).unwrap();
        assert_eq!(Parsed::read(&beyond), None);
        assert_eq!(Parsed::read(&Cursor::default()), None);
        assert_eq!(Parsed::read(&Cursor::new(vec![2; 100]).unwrap()), None);
    }
}
