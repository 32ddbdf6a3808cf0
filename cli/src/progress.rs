//! Progress bars on long work, on standard error, when that is a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws a second: enough for the eye, and no load.
const REDRAWS_PER_SECOND: u8 = 10;

/// Where bars are drawn: nowhere when standard error is no terminal.
pub fn board() -> MultiProgress {
    // The target hides itself unless it is a terminal.
    MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND))
}

/// A bar up to `length`, or a running count when nobody knows how many will come.
pub fn bar(board: &MultiProgress, what: &'static str, length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{prefix:>10} {wide_bar} {human_pos}/{human_len} {per_sec:>14}",
        ),
        None => (ProgressBar::no_length(), "{prefix:>10} {human_pos} {per_sec}"),
    };
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    board.add(bar.with_style(style).with_prefix(what))
}
