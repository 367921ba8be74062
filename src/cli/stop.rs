//! Signals that ask a run to store itself and end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A flag that SIGTERM and SIGINT set.
pub(super) fn stop_flag() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // A second one ends the process at once.
        let shutdown =
            signal_hook::flag::register_conditional_shutdown(signal, 75, Arc::clone(&stop));
        let set = shutdown.and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        if let Err(e) = set {
            tracing::warn!("signals will end the run without storing it: {e}");
        }
    }
    stop
}
