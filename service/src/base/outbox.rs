//! A bounded queue of messages to one receiver, which a task sends one after the other. Nobody waits for it.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Its messages are sent until it is dropped and all are sent, until it is ended, or until the service stops: then what waits is
/// tried once more.
pub struct Outbox<T> {
    waiting: Sender<T>,
    ended: watch::Sender<bool>,
    /// Taken by the task that sends.
    queue: Arc<Mutex<Option<Receiver<T>>>>,
}

/// Whether the service stops, or the outbox is ended.
#[derive(Debug, Clone)]
pub struct Stopping {
    service: watch::Receiver<bool>,
    outbox: watch::Receiver<bool>,
}

impl<T: Send + 'static> Outbox<T> {
    /// At most so many messages wait.
    pub fn new(most: usize) -> Self {
        let (waiting, queue) = channel(most);
        Self { waiting, ended: watch::Sender::new(false), queue: Arc::new(Mutex::new(Some(queue))) }
    }

    /// False: too many wait, or it is ended.
    pub fn enqueue(&self, message: T) -> bool {
        self.enqueue_leaving(0, message)
    }

    /// As [`Self::enqueue`], and so many places must stay free for others. Each thread that enqueues at the same time may
    /// take one of them.
    pub fn enqueue_leaving(&self, free: usize, message: T) -> bool {
        self.waiting.capacity() > free && self.waiting.try_send(message).is_ok()
    }

    /// From now on nothing is taken. The message that is being sent is not tried again; what waits is left.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    /// `send` takes care of a message, with all its tries; `left` of one that is left at the end. Has no effect the second time.
    pub fn start<S, F, L>(&self, work: &TaskTracker, stop: &watch::Receiver<bool>, send: S, left: L)
    where
        S: Fn(T, Stopping) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
        L: Fn(T) + Send + 'static,
    {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut queue) = queue else { return };
        let mut stopping = Stopping { service: stop.clone(), outbox: self.ended.subscribe() };
        work.spawn(async move {
            loop {
                let Stopping { service, outbox } = &mut stopping;
                let message = tokio::select! {
                    biased;
                    () = ends(outbox) => break,
                    message = queue.recv() => message,
                    () = stops(service) => {
                        queue.close();
                        queue.recv().await
                    }
                };
                let Some(message) = message else { return };
                send(message, stopping.clone()).await;
            }
            queue.close();
            while let Some(message) = queue.recv().await {
                left(message);
            }
        });
    }
}

impl Stopping {
    /// Waits. False: there is no time for another try.
    pub async fn pause(&mut self, pause: Duration) -> bool {
        let Self { service, outbox } = self;
        tokio::select! {
            biased;
            () = ends(outbox) => false,
            () = stops(service) => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

async fn stops(service: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say it.
    let _ = service.wait_for(|stop| *stop).await;
}

/// Not when it is dropped: then what waits is sent.
async fn ends(outbox: &mut watch::Receiver<bool>) {
    if outbox.wait_for(|ended| *ended).await.is_err() {
        std::future::pending::<()>().await;
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

    use futures_util::future::BoxFuture;

    #[tokio::test]
    async fn messages_are_sent_in_order_and_one_too_many_is_not_taken() {
        let (outbox, work, stop) = (Outbox::new(3), TaskTracker::new(), watch::Sender::new(false));
        let taken: Vec<bool> = (0..5).map(|number| outbox.enqueue(number)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        let sent = Arc::new(Mutex::new(Vec::new()));
        let sending = Arc::clone(&sent);
        let send = move |number: u32, mut stopping: Stopping| {
            let sent = Arc::clone(&sending);
            async move {
                assert!(stopping.pause(Duration::from_millis(1)).await);
                sent.lock().unwrap().push(number);
            }
        };
        outbox.start(&work, &stop.subscribe(), send, |_| panic!("all are sent"));
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
        outbox.start(&work, &stop.subscribe(), try_for_ever(&tries), |_| panic!("all are tried"));
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

    #[tokio::test]
    async fn an_outbox_that_is_ended_finishes_its_try_and_leaves_the_others() {
        let (outbox, work, stop) = (Outbox::new(3), TaskTracker::new(), watch::Sender::new(false));
        assert!((0..3).all(|number| outbox.enqueue(number)));
        let (tries, left) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let leaving = Arc::clone(&left);
        outbox
            .start(&work, &stop.subscribe(), try_for_ever(&tries), move |number| leaving.lock().unwrap().push(number));
        while tries.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        outbox.end();
        work.close();
        work.wait().await;
        assert_eq!((tries.load(Ordering::SeqCst), &*left.lock().unwrap()), (1, &vec![1, 2]));
        assert!(!outbox.enqueue(3));
    }

    #[test]
    fn places_can_be_left_for_others() {
        let outbox = Outbox::new(3);
        assert_eq!([0; 3].map(|number| outbox.enqueue_leaving(1, number)), [true, true, false]);
        assert!(outbox.enqueue(0) && !outbox.enqueue(0));
    }

    fn try_for_ever(tries: &Arc<AtomicU32>) -> impl Fn(u32, Stopping) -> BoxFuture<'static, ()> + Send + 'static {
        let counting = Arc::clone(tries);
        move |_, mut stopping| {
            let tries = Arc::clone(&counting);
            Box::pin(async move {
                while {
                    tries.fetch_add(1, Ordering::SeqCst);
                    stopping.pause(Duration::from_secs(3600)).await
                } {}
            })
        }
    }
}
