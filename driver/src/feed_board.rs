//! The picture of all revocations that the dispatcher published last. Threads look for a newer one without a lock.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use authn::revocation::{Known, Picture};
use authn::time::Monotonic;

/// Where the dispatcher publishes.
#[derive(Debug, Default)]
pub struct FeedBoard {
    version: AtomicU64,
    /// Up to when the picture of this version is complete. 0: there is no proof.
    complete: AtomicU64,
    picture: Mutex<Arc<Picture>>,
}

/// What one thread has read of it.
#[derive(Debug, Default)]
pub struct FeedReader {
    version: u64,
    picture: Arc<Picture>,
    complete: Monotonic,
}

/// A thread that meets a change so often reads without a proof: the request is asked about.
const TRIES: u32 = 3;

impl FeedBoard {
    /// Another picture, with its own proof. No thread ever sees it with the proof of the earlier picture.
    pub fn publish(&self, picture: &Arc<Picture>, complete: Monotonic) {
        let mut newest = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        self.complete.store(0, Ordering::SeqCst);
        *newest = Arc::clone(picture);
        self.version.fetch_add(1, Ordering::SeqCst);
        self.complete.store(complete.0, Ordering::SeqCst);
    }

    /// A newer proof for the same picture.
    pub fn prove(&self, complete: Monotonic) {
        self.complete.store(complete.0, Ordering::SeqCst);
    }
}

impl FeedReader {
    /// Takes over the newest picture and its proof.
    pub fn read(&mut self, board: &FeedBoard) {
        self.complete = Monotonic(0);
        for _ in 0..TRIES {
            if board.version.load(Ordering::SeqCst) != self.version {
                let newest = board.picture.lock().unwrap_or_else(PoisonError::into_inner);
                // Both change only under this lock.
                self.version = board.version.load(Ordering::SeqCst);
                self.picture = Arc::clone(&newest);
            }
            let complete = board.complete.load(Ordering::SeqCst);
            // A proof is stored after the version that it belongs to. So if there is no newer version now, this proof is of
            // ours, or of an earlier version and then 0.
            if board.version.load(Ordering::SeqCst) == self.version {
                self.complete = Monotonic(complete);
                return;
            }
        }
    }

    pub fn known(&self) -> Known<'_> {
        Known { picture: &self.picture, complete: self.complete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::RevocationKey;

    #[test]
    fn a_picture_comes_with_its_own_proof() {
        let board = FeedBoard::default();
        let mut reader = FeedReader::default();
        reader.read(&board);
        assert_eq!(reader.known().complete, Monotonic(0));
        let one = Arc::new(Picture::default().with(&[RevocationKey([1; 16])], Monotonic(5)));
        board.publish(&one, Monotonic(7));
        reader.read(&board);
        assert_eq!((reader.known().complete, reader.known().picture.end()), (Monotonic(7), 1));
        board.prove(Monotonic(9));
        reader.read(&board);
        assert_eq!((reader.known().complete, reader.known().picture.end()), (Monotonic(9), 1));
        board.publish(&Arc::new(Picture::default()), Monotonic(0));
        reader.read(&board);
        assert_eq!((reader.known().complete, reader.known().picture.end()), (Monotonic(0), 0));
    }

    /// A proof says how many keys the picture has at least. No reader may see a proof of more keys than its picture has.
    #[test]
    fn no_thread_sees_a_proof_that_is_not_of_its_picture() {
        let board = Arc::new(FeedBoard::default());
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let board = Arc::clone(&board);
                std::thread::spawn(move || {
                    let mut reader = FeedReader::default();
                    let mut most = 0;
                    while most < 2000 {
                        reader.read(&board);
                        let known = reader.known();
                        assert!(known.complete.0 <= known.picture.end());
                        most = most.max(known.picture.end());
                    }
                })
            })
            .collect();
        let mut picture = Picture::default();
        for number in 0..2000u32 {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&number.to_be_bytes());
            picture = picture.with(&[RevocationKey(key)], Monotonic(1));
            board.publish(&Arc::new(picture.clone()), Monotonic(picture.end()));
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    }
}
