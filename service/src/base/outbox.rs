//! A bounded queue of messages to one receiver, which a task sends one after the other. Nobody waits for it.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Its messages are sent until it is dropped, or until the service stops: then what waits is tried once more.
pub struct Outbox<T> {
    waiting: Sender<T>,
    /// Taken by the task that sends.
    queue: Arc<Mutex<Option<Receiver<T>>>>,
}

/// Whether the service stops.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<bool>);

impl<T: Send + 'static> Outbox<T> {
    /// At most so many messages wait.
    pub fn new(most: usize) -> Self {
        let (waiting, queue) = channel(most);
        Self { waiting, queue: Arc::new(Mutex::new(Some(queue))) }
    }

    /// False: too many wait.
    pub fn enqueue(&self, message: T) -> bool {
        self.waiting.try_send(message).is_ok()
    }

    /// `send` takes care of a message, with all its tries. Has no effect the second time.
    pub fn start<S, F>(&self, work: &TaskTracker, stop: &watch::Receiver<bool>, send: S)
    where
        S: Fn(T, Stopping) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut queue) = queue else { return };
        let mut stopping = Stopping(stop.clone());
        work.spawn(async move {
            loop {
                let message = tokio::select! {
                    biased;
                    message = queue.recv() => message,
                    () = stopping.said() => {
                        queue.close();
                        queue.recv().await
                    }
                };
                let Some(message) = message else { return };
                send(message, stopping.clone()).await;
            }
        });
    }
}

impl Stopping {
    async fn said(&mut self) {
        // An error means that nobody is left to say it.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Waits. False: the service stops, so that there is no time for another try.
    pub async fn pause(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.said()).await.is_err()
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("free", &self.waiting.capacity()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn messages_are_sent_in_order_and_one_too_many_is_not_taken() {
        let (outbox, work, stop) = (Outbox::new(3), TaskTracker::new(), watch::Sender::new(false));
        let taken: Vec<bool> = (0..5).map(|number| outbox.enqueue(number)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        let sent = Arc::new(Mutex::new(Vec::new()));
        let sending = Arc::clone(&sent);
        outbox.start(&work, &stop.subscribe(), move |number: u32, mut stopping| {
            let sent = Arc::clone(&sending);
            async move {
                assert!(stopping.pause(Duration::from_millis(1)).await);
                sent.lock().unwrap().push(number);
            }
        });
        drop(outbox);
        work.close();
        work.wait().await;
        assert_eq!(*sent.lock().unwrap(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn at_a_stop_what_waits_is_tried_once_and_nothing_is_taken_any_more() {
        let (outbox, work, stop) = (Outbox::new(3), TaskTracker::new(), watch::Sender::new(false));
        assert!((0..3).all(|number| outbox.enqueue(number)));
        let tries = Arc::new(AtomicU32::new(0));
        let counting = Arc::clone(&tries);
        outbox.start(&work, &stop.subscribe(), move |_, mut stopping| {
            let tries = Arc::clone(&counting);
            async move {
                while {
                    tries.fetch_add(1, Ordering::SeqCst);
                    stopping.pause(Duration::from_secs(3600)).await
                } {}
            }
        });
        while tries.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(tries.load(Ordering::SeqCst), 1);
        stop.send_replace(true);
        work.close();
        work.wait().await;
        assert_eq!(tries.load(Ordering::SeqCst), 3);
        assert!(!outbox.enqueue(3));
    }
}
