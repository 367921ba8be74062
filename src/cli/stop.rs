//! Signals that ask a run to store itself and end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Common;

/// A flag that SIGTERM and SIGINT set, and SIGHUP where the process was not started to ignore it. Only
/// for commands that look at it: it takes from the signals what they do to others.
pub(super) fn stop_flag(common: &Common) -> Arc<AtomicBool> {
    let mut signals = vec![signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT];
    #[cfg(unix)]
    if !common.ignores_hangup {
        signals.push(signal_hook::consts::SIGHUP);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in signals {
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
