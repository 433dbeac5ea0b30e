//! One configuration in one VM: its worker, its dispatcher, and the callbacks of its requests.
use driver::{Action, CallId, Configured, Dispatcher, HostError, StreamId, TICK, Worker};

use crate::backend::{Backend, Effective, Reply};
use crate::exchange::Request;
use crate::host::{self, MapType};
use crate::pairs;
use crate::response::Response;

pub struct PluginContext {
    backend: Backend,
    worker: Worker,
    dispatcher: Dispatcher,
}

impl PluginContext {
    /// # Errors
    /// The error of the configuration or the host, for the log.
    pub fn configure(root: u32, text: Vec<u8>) -> Result<Self, String> {
        let mut backend =
            Backend::new(root).map_err(|HostError(status)| format!("the host gives no time: status {status}"))?;
        let effective = Effective::new(root);
        let Configured { core, dispatcher } = {
            let mut setup = backend.calling(&effective, true);
            driver::configure(&mut setup, text)?
        };
        host::set_tick_period(TICK).map_err(|HostError(status)| format!("the host gives no ticks: status {status}"))?;
        Ok(Self { backend, worker: Worker::new(core), dispatcher })
    }

    pub fn on_request_headers(&mut self, context: u32, ends: bool) -> Action {
        let effective = Effective::new(context);
        let mut request = Request::new(context, &effective);
        let mut calling = self.backend.calling(&effective, false);
        let stream = StreamId::from(context);
        let action = self.worker.begin(stream, ends, &mut calling, &mut request, &mut self.dispatcher);
        // A local reply holds the request that the host called back about, also if it is the reply to another one. So
        // what waits is resumed by the next callback, at the latest by a tick.
        if action != Action::Continue {
            self.resume(&effective);
        }
        action
    }

    pub fn on_callout_answered(&mut self, call: u32) {
        let effective = Effective::new(self.backend.root());
        let mut calling = self.backend.calling(&effective, true);
        self.dispatcher.answered(&mut calling, CallId(u64::from(call)), &Reply);
        self.resume(&effective);
    }

    pub fn on_tick(&mut self) {
        let effective = Effective::new(self.backend.root());
        let mut calling = self.backend.calling(&effective, true);
        self.worker.flush(&mut calling);
        self.dispatcher.tick(&mut calling);
        self.resume(&effective);
    }

    /// Resumes the requests whose wait is over, and ends the streams whose session or token has ended.
    fn resume(&mut self, effective: &Effective) {
        while let Some(stream) = self.dispatcher.poll_wake() {
            let Ok(context) = u32::try_from(stream) else { continue };
            let mut request = Request::new(context, effective);
            // The host no longer knows it.
            if effective.set(context).is_err() {
                self.worker.gone(stream, &mut self.dispatcher);
                continue;
            }
            let mut calling = self.backend.calling(effective, false);
            let action = self.worker.resume(stream, &mut calling, &mut request, &mut self.dispatcher);
            if action == Action::Continue {
                let _ = request.resume();
            }
        }
        while let Some(stream) = self.dispatcher.poll_end() {
            let Ok(context) = u32::try_from(stream) else { continue };
            // The host no longer knows it.
            if effective.set(context).is_err() {
                self.worker.gone(stream, &mut self.dispatcher);
                continue;
            }
            let mut request = Request::new(context, effective);
            let mut calling = self.backend.calling(effective, false);
            self.worker.end(stream, &mut calling, &mut request, &mut self.dispatcher);
        }
    }

    /// True when its body and trailers must be held.
    pub fn is_held(&self, context: u32) -> bool {
        self.worker.is_held(StreamId::from(context))
    }

    pub fn on_request_trailers(&mut self) {
        let trailers = host::header_map(MapType::HttpRequestTrailers);
        let Some(pairs) = trailers.as_deref().ok().and_then(pairs::read) else {
            // They cannot be read: at least the exact names are removed.
            for name in self.worker.cleared() {
                let _ = host::remove_header(MapType::HttpRequestTrailers, name.as_bytes());
            }
            return;
        };
        for (name, _) in pairs {
            if self.worker.clears_trailer(name) {
                let _ = host::remove_header(MapType::HttpRequestTrailers, name);
            }
        }
    }

    pub fn on_response_headers(&mut self, context: u32) {
        let effective = Effective::new(context);
        let mut calling = self.backend.calling(&effective, false);
        self.worker.on_response_headers(StreamId::from(context), &mut calling, &mut Response);
    }

    pub fn on_response_trailers(&mut self, context: u32) {
        let stream = StreamId::from(context);
        if !self.worker.knows(stream) {
            return;
        }
        let Ok(trailers) = host::header_map(MapType::HttpResponseTrailers) else { return };
        for (name, _) in pairs::read(&trailers).unwrap_or_default() {
            if self.worker.removes_response_trailer(stream, name) {
                let _ = host::remove_header(MapType::HttpResponseTrailers, name);
            }
        }
    }

    pub fn on_request_gone(&mut self, context: u32) {
        self.worker.gone(StreamId::from(context), &mut self.dispatcher);
    }

    /// This configuration is over.
    pub fn end(&mut self) {
        let effective = Effective::new(self.backend.root());
        let mut calling = self.backend.calling(&effective, true);
        self.worker.flush(&mut calling);
        self.dispatcher.end(&mut calling);
    }
}
