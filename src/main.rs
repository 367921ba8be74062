//! The `compress-model` command: exit codes and nothing else; the subcommands are in
//! `compress_model::cli`.

fn main() {
    leave(compress_model::cli::main(ignores_hangup()))
}

/// Whether the process was started to outlive its terminal, as nohup does.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, `sigaction` only writes the present one to where it is told.
    let read = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: it was written where the call gave no error.
    read == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(not(unix))]
fn ignores_hangup() -> bool {
    false
}

/// Ends the process without the exit handlers of the libraries in it. Those of Mesa's llvmpipe were
/// seen to find their heap corrupted and abort, with the verdict printed and all of ours put away.
#[cfg(unix)]
fn leave(code: u8) -> ! {
    use std::io::Write;

    // A reader that has gone is no failure of ours, and others were reported where they happened.
    let _ = std::io::stdout().flush();
    // SAFETY: `_exit` takes any status and touches no memory of the program. What it skips are exit
    // handlers and the flushing of C streams, which no code here writes to.
    unsafe { libc::_exit(code.into()) }
}

#[cfg(not(unix))]
fn leave(code: u8) -> ! {
    std::process::exit(code.into())
}
