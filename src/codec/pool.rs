//! Workers handed from panel to panel, so that each thread sets one up once.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Codec, CodecError, Worker};

/// A codec with its idle workers.
#[derive(Clone)]
pub struct WorkerPool {
    codec: Arc<dyn Codec>,
    idle: Arc<Mutex<Vec<Box<dyn Worker>>>>,
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPool").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl WorkerPool {
    /// A pool without workers.
    #[must_use]
    pub fn new(codec: Arc<dyn Codec>) -> Self {
        Self { codec, idle: Arc::default() }
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> &dyn Codec {
        &*self.codec
    }

    /// Runs `work` with an idle worker or a new one.
    ///
    /// # Errors
    /// What setting up the worker or `work` gives.
    pub fn with<T>(
        &self,
        work: impl FnOnce(&mut dyn Worker) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut worker = match idle {
            Some(worker) => worker,
            None => self.codec.worker()?,
        };
        let result = work(&mut *worker);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        result
    }
}
