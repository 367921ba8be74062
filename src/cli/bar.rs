//! Bars on stderr.

use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::Common;

/// Whether bars are shown: on a terminal, without `--quiet`.
pub(super) fn visible(common: &Common) -> bool {
    !common.quiet && std::io::stderr().is_terminal()
}

/// A bar of `length` in the style of `template`, where `{per_sec}` is a rounded rate.
pub(super) fn bar(visible: bool, length: u64, template: &str) -> ProgressBar {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        let style = style.with_key("per_sec", |state: &ProgressState, text: &mut dyn Write| {
            let _ = write!(text, "{:.0}/s", state.per_sec());
        });
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
