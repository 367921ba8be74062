//! Workers handed from panel to panel, so that each thread sets one up once.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Codec, CodecError, Worker};

/// One [`WorkerPool`] for each distinct codec, however many tensors it serves.
#[derive(Debug, Default)]
pub struct WorkerPools {
    known: Vec<WorkerPool>,
}

impl WorkerPools {
    /// The pool of `codec`, shared with every other codec of its name and parameters.
    pub fn of(&mut self, codec: &Arc<dyn Codec>) -> WorkerPool {
        let same = |pool: &&WorkerPool| {
            pool.codec.name() == codec.name() && pool.codec.params() == codec.params()
        };
        if let Some(pool) = self.known.iter().find(same) {
            return pool.clone();
        }
        let pool = WorkerPool::new(Arc::clone(codec));
        self.known.push(pool.clone());
        pool
    }
}

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
    fn new(codec: Arc<dyn Codec>) -> Self {
        Self { codec, idle: Arc::default() }
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> &dyn Codec {
        &*self.codec
    }

    /// The codec, to be shared.
    #[cfg(feature = "model")]
    pub(crate) fn codec_arc(&self) -> Arc<dyn Codec> {
        Arc::clone(&self.codec)
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
